#!/usr/bin/env node
// Node's EventEmitter, measured by `cargo xtask bench bus`.
//
// Each line of stdin is a command as JSON, `["deliver", 10, 500]`; its answer is one line of JSON on stdout. Times are
// processor time of the whole process. `emit` calls its listeners itself; what an async listener does after its first
// `await`, and the settling of its promise, happens in the turn of the loop that each burst waits for.
'use strict';
const { EventEmitter } = require('events');
const { randomUUID } = require('crypto');
const { performance } = require('perf_hooks');

const BURST = 500;
const SESSION = randomUUID();
let seq = 0;

/** Seconds of processor time that this process has used. */
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const turn = () => new Promise((resolve) => setImmediate(resolve));
const rss = () => process.memoryUsage().rss;
const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** An event with the fields that Antiphon stamps. */
const build = (type, session, text, pcm) => ({
  type,
  event_id: randomUUID(),
  timestamp: new Date(),
  session_id: session,
  seq: ++seq,
  mono_ns: performance.now() * 1e6,
  participant: null,
  user_metadata: null,
  text,
  pcm,
});
const small = () => build('small', SESSION, 'hello', null);
const chunk = () => Buffer.from(new Uint8Array(640));

/** Bursts of fresh events to `listeners` of the kind that `listener` makes. */
async function bursts(count, listeners, listener) {
  const emitter = new EventEmitter();
  emitter.setMaxListeners(0);
  const seen = { count: 0 };
  for (let i = 0; i < listeners; i++) emitter.on('small', listener(seen));
  const begin = cpu();
  for (let burst = 0; burst < count; burst++) {
    for (let i = 0; i < BURST; i++) emitter.emit('small', small());
    await turn();
  }
  const used = cpu() - begin;
  if (seen.count !== count * BURST * listeners) throw new Error('events were lost');
  return { cpu_s: used };
}

/** One session of the load: an emitter of its own with a listener for audio and one for small events. */
function openSession(seen) {
  const emitter = new EventEmitter();
  emitter.on('audio', async () => { seen.count++; });
  emitter.on('small', async () => { seen.count++; });
  return { emitter, id: randomUUID(), ticks: 0 };
}

const commands = {
  hello: () => ({ version: process.version }),

  deliver: (listeners, count) => bursts(count, listeners, (seen) => async () => { seen.count++; }),

  observe: (count) => bursts(count, 1, (seen) => () => { seen.count++; }),

  unwanted(count) {
    const emitter = new EventEmitter();
    const event = small();
    const begin = cpu();
    for (let i = 0; i < count * BURST; i++) emitter.emit('small', event);
    return { cpu_s: cpu() - begin };
  },

  /** One event per millisecond, late ones at once; from before `emit` to the first line of the listener. */
  async latency(seconds) {
    const emitter = new EventEmitter();
    const taken = [];
    emitter.on('small', async (event) => { taken.push(Number(process.hrtime.bigint() - event.sent)); });
    const count = Math.floor(seconds * 1000);
    const begin = performance.now();
    await new Promise((resolve) => {
      let sent = 0;
      const tick = () => {
        while (sent < count && performance.now() >= begin + sent) {
          const event = small();
          event.sent = process.hrtime.bigint();
          emitter.emit('small', event);
          sent++;
        }
        if (sent < count) setTimeout(tick, 1);
        else resolve();
      };
      tick();
    });
    const sorted = taken.slice(Math.floor(taken.length / 10)).sort((a, b) => a - b);
    return { p50_us: quantile(sorted, 0.5) / 1e3, p99_us: quantile(sorted, 0.99) / 1e3 };
  },

  /** The load of so many sessions; see `sessions.rs` for the clock and the rule. */
  async sessions(number, seconds) {
    const seen = { count: 0 };
    const slots = Array.from({ length: 20 }, () => []);
    for (let i = 0; i < number; i++) slots[i % 20].push({ ...openSession(seen), ticks: i % 5 });
    const warm = 1000;
    const total = Math.floor(seconds * 1000) + warm;
    const late = [];
    let skipped = 0;
    let before = 0;
    const clock = () => cpu() * 1e3 + skipped;
    const origin = clock();
    for (let tick = 0; tick < total; tick++) {
      const due = origin + tick;
      skipped += Math.max(0, due - clock());
      if (tick === warm) before = cpu();
      for (const session of slots[tick % 20]) {
        session.emitter.emit('audio', build('audio', session.id, null, chunk()));
        if (++session.ticks % 5 === 0) session.emitter.emit('small', build('small', session.id, 'hello', null));
      }
      await turn();
      const lateness = clock() - due;
      if (tick >= warm) late.push(lateness);
      if (lateness > 2000) return { p50_ms: lateness, p99_ms: lateness, load: 1 };
    }
    late.sort((a, b) => a - b);
    return { p50_ms: quantile(late, 0.5), p99_ms: quantile(late, 0.99), load: (cpu() - before) / seconds };
  },

  /** Memory of sessions that have had one event of each kind and are idle. */
  async idle(number) {
    const seen = { count: 0 };
    global.gc();
    const before = rss();
    const sessions = Array.from({ length: number }, () => openSession(seen));
    for (const session of sessions) {
      session.emitter.emit('audio', build('audio', session.id, null, chunk()));
      session.emitter.emit('small', build('small', session.id, 'hello', null));
    }
    await turn();
    global.gc();
    return { bytes: rss() - before, sessions: sessions.length };
  },

  /** Memory of events that were emitted while a listener waits for ever. */
  async stuck(count) {
    const emitter = new EventEmitter();
    let open;
    const gate = new Promise((resolve) => { open = resolve; });
    emitter.on('audio', async (event) => { await gate; return event.pcm.length; });
    global.gc();
    const before = rss();
    for (let i = 0; i < count; i++) {
      emitter.emit('audio', build('audio', SESSION, null, chunk()));
      if (i % BURST === 0) await turn();
    }
    global.gc();
    const bytes = rss() - before;
    open();
    return { bytes };
  },
};

(async () => {
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    const [command, ...args] = JSON.parse(line);
    console.log(JSON.stringify(await commands[command](...args)));
  }
})();
