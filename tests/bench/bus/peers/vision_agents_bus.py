#!/usr/bin/env python3
"""Vision Agents' EventManager, measured by `cargo xtask bench bus`.

Each line of stdin is a command as JSON, `["deliver", 10, 500]`; its answer is one line of JSON on stdout. Times are
processor time of the whole process. A burst ends when every handler has run and its task is gone, which is when the
manager itself is done with the events.
"""
import asyncio
import gc
import importlib.metadata
import json
import logging
import os
import sys
import time

import numpy as np
from getstream.video.rtc.track_util import PcmData
from vision_agents.core.agents.events import UserTranscriptEvent
from vision_agents.core.edge.events import AudioReceivedEvent
from vision_agents.core.edge.types import Participant
from vision_agents.core.events import EventManager

BURST = 500
SESSION = "0199a3b0-0000-7000-8000-000000000000"
USER = Participant(original=None, user_id="u", id="u")


def small(session=SESSION):
    return UserTranscriptEvent(text="hello", participant=USER, session_id=session)


def audio(session=SESSION):
    samples = np.frombuffer(bytearray(640), dtype=np.int16)
    chunk = PcmData(sample_rate=16000, format="s16", samples=samples, channels=1)
    return AudioReceivedEvent(pcm_data=chunk, participant=USER, session_id=session)


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def quantile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))]


def manager(*events):
    made = EventManager()
    made.register(*events)
    return made


async def hello():
    return dict(version=importlib.metadata.version("vision-agents"), python=sys.version.split()[0])


async def deliver(handlers, count):
    events, seen = manager(UserTranscriptEvent), [0]
    for _ in range(handlers):

        async def handler(event: UserTranscriptEvent):
            seen[0] += 1

        events.subscribe(handler)
    gc.collect()
    begin = time.process_time()
    for _ in range(count):
        for _ in range(BURST):
            events.send(small())
        while events._handler_tasks:
            await asyncio.sleep(0)
    used = time.process_time() - begin
    assert seen[0] == count * BURST * handlers, "events were lost"
    return dict(cpu_s=used)


async def unwanted(count):
    events, event = manager(UserTranscriptEvent), small()
    gc.collect()
    begin = time.process_time()
    for _ in range(count * BURST):
        events.send(event)
    return dict(cpu_s=time.process_time() - begin)


async def latency(seconds):
    """One event per millisecond, late ones at once; from before `send` to the first line of the handler."""
    events, taken = manager(UserTranscriptEvent), []

    @events.subscribe
    async def handler(event: UserTranscriptEvent):
        taken.append(time.perf_counter_ns() - event.user_metadata)

    count, begin = int(seconds * 1000), time.perf_counter()
    for i in range(count):
        wait = begin + i / 1000 - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        event = small()
        event.user_metadata = time.perf_counter_ns()
        events.send(event)
    await events.wait()
    taken = sorted(taken[count // 10 :])
    return dict(p50_us=quantile(taken, 0.5) / 1e3, p99_us=quantile(taken, 0.99) / 1e3)


class Session:
    """One session of the load: a manager of its own, as each Agent has, with a handler for audio and one for text."""

    def __init__(self, number, seen):
        self.id, self.ticks = f"session-{number}", number % 5
        self.events = manager(AudioReceivedEvent, UserTranscriptEvent)

        @self.events.subscribe
        async def on_audio(event: AudioReceivedEvent):
            seen[0] += 1

        @self.events.subscribe
        async def on_small(event: UserTranscriptEvent):
            seen[0] += 1


async def sessions(number, seconds):
    """The load of so many sessions; see `sessions.rs` for the clock and the rule."""
    seen, sent, skipped, before, late = [0], 0, 0.0, 0.0, []
    opened = [Session(i, seen) for i in range(number)]
    slots, warm = [opened[i::20] for i in range(20)], 1000
    gc.collect()
    origin = time.process_time()
    for tick in range(int(seconds * 1000) + warm):
        due = origin + tick / 1000
        skipped += max(0.0, due - (time.process_time() + skipped))
        if tick == warm:
            before = time.process_time()
        for session in slots[tick % 20]:
            session.events.send(audio(session.id))
            session.ticks += 1
            sent += 1
            if session.ticks % 5 == 0:
                session.events.send(small(session.id))
                sent += 1
        while seen[0] < sent:
            await asyncio.sleep(0)
        lateness = time.process_time() + skipped - due
        if tick >= warm:
            late.append(lateness * 1e3)
        if lateness > 2:
            late, before = [lateness * 1e3], time.process_time() - seconds
            break
    load = (time.process_time() - before) / seconds
    for session in opened:
        await session.events.shutdown()
    late.sort()
    return dict(p50_ms=quantile(late, 0.5), p99_ms=quantile(late, 0.99), load=load)


async def idle(number):
    """Memory of sessions that have had one event of each kind and are idle."""
    seen = [0]
    gc.collect()
    before = rss()
    opened = [Session(i, seen) for i in range(number)]
    for session in opened:
        session.events.send(audio(session.id), small(session.id))
        await session.events.wait()
    gc.collect()
    return dict(bytes=rss() - before, sessions=len(opened))


async def stuck(count):
    """Memory of events that were sent while a handler waits for ever."""
    events, gate = manager(AudioReceivedEvent), asyncio.Event()

    @events.subscribe
    async def handler(event: AudioReceivedEvent):
        await gate.wait()

    gc.collect()
    before = rss()
    for i in range(count):
        events.send(audio())
        if i % BURST == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    grown = rss() - before
    gate.set()
    await events.wait(60)
    return dict(bytes=grown)


def main():
    logging.getLogger().setLevel(logging.WARNING)
    commands = dict(
        hello=hello,
        deliver=deliver,
        unwanted=unwanted,
        latency=latency,
        sessions=sessions,
        idle=idle,
        stuck=stuck,
    )
    for line in sys.stdin:
        command, *args = json.loads(line)
        print(json.dumps(asyncio.run(commands[command](*args))), flush=True)


main()
