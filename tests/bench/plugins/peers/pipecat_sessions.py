#!/usr/bin/env python3
"""Pipecat's pipeline, measured by `cargo xtask bench plugins`.

Each line of stdin is a command as JSON, `["load", 50, 5.0]`; its answer is one line of JSON on stdout. A session is a
pipeline task of its own: a recogniser that passes audio on, a synthesiser that says each chunk as it was heard, and a
sink that notes when it came. What the framework would do beside that is off: turn tracking, RTVI, metrics, heartbeats,
idle timeout.
"""
import asyncio
import gc
import importlib.metadata
import json
import os
import sys
import time
import warnings

os.environ["LOGURU_LEVEL"] = "ERROR"

from loguru import logger

logger.remove()

from pipecat.frames.frames import EndFrame, InputAudioRawFrame, StartFrame, TTSAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameProcessor

logger.remove()
# Its older names work in older and newer releases. Only now, because the package switches its warnings on.
warnings.simplefilter("ignore", DeprecationWarning)

SLOTS, PERIOD, WARM = 20, 0.020, 50
# What has not left a pipeline's queues after so many periods is not waited for: live audio waits for nobody.
ROOM = 256


class Recogniser(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Synthesiser(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = TTSAudioRawFrame(audio=frame.audio, sample_rate=16000, num_channels=1)
        await self.push_frame(frame, direction)


class Sink(FrameProcessor):
    def __init__(self, session):
        super().__init__()
        self.session = session

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.session.took(frame.audio)
        elif isinstance(frame, StartFrame):
            self.session.started.set()
        await self.push_frame(frame, direction)


class Session:
    def __init__(self, slot):
        self.slot, self.due, self.sent, self.taken, self.late = slot, 0.0, 0, 0, []
        self.started = asyncio.Event()
        self.task = PipelineTask(
            Pipeline([Recogniser(), Synthesiser(), Sink(self)]),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
            cancel_on_idle_timeout=False,
        )
        self.run = asyncio.create_task(PipelineRunner(handle_sigint=False).run(self.task))

    def took(self, audio):
        number = int.from_bytes(audio[:4], "little")
        self.taken += 1
        if number >= WARM:
            self.late.append(max(0.0, time.perf_counter() - self.due - number * PERIOD) * 1e3)


def quantile(values, part):
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


async def load(number, seconds):
    """So many sessions, each with a chunk every 20 ms, paced in real time."""
    opened = [Session(i % SLOTS) for i in range(number)]
    for session in opened:
        await asyncio.wait_for(session.started.wait(), 60)
    slots, periods = [opened[i::SLOTS] for i in range(SLOTS)], WARM + int(seconds / PERIOD)
    gc.collect()
    origin, dropped = time.perf_counter() + PERIOD, 0
    for session in opened:
        session.due = origin + session.slot / 1000
    for tick in range(periods * SLOTS):
        wait = origin + tick / 1000 - time.perf_counter()
        # Others run even when we are late.
        await asyncio.sleep(max(0.0, wait))
        period = tick // SLOTS
        if tick == WARM * SLOTS:
            cpu, wall = time.process_time(), time.perf_counter()
        for session in slots[tick % SLOTS]:
            if session.sent - session.taken >= ROOM:
                dropped += period >= WARM
                continue
            session.sent += 1
            audio = period.to_bytes(4, "little") + bytes(636)
            frame = InputAudioRawFrame(audio=audio, sample_rate=16000, num_channels=1)
            await session.task.queue_frame(frame)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await asyncio.sleep(1)
    late = sorted(value for session in opened for value in session.late)
    for session in opened:
        await session.task.queue_frame(EndFrame())
    await asyncio.wait([session.run for session in opened], timeout=20)
    chunks = (periods - WARM) * number
    return dict(
        cpu_s=cpu,
        wall_s=wall,
        chunks=chunks,
        late=sum(value > PERIOD * 1e3 for value in late),
        dropped=max(dropped, chunks - len(late)),
        p50_ms=quantile(late, 0.5),
        p99_ms=quantile(late, 0.99),
    )


async def hello():
    return dict(version=importlib.metadata.version("pipecat-ai"), python=sys.version.split()[0])


def main():
    commands = dict(hello=hello, load=load)
    # What the framework prints is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        command, *args = json.loads(line)
        print(json.dumps(asyncio.run(commands[command](*args))), file=answers, flush=True)


main()
