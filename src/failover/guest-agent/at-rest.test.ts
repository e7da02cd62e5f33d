import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../../test/rig/at-end.ts';
import { hostClock, hostRandom } from '../../disk/host-clock.ts';
import type { Clock } from '../../model/ports.ts';
import { openAgentSocket } from './agent-channel.ts';
import { cutAtRest, thawBehind, type AtRestParts } from './at-rest.ts';
import { FakeAgent, type Habit } from './fake-agent.suite.ts';
import { hostSockets } from './host-sockets.ts';

/** Seconds pass as twentieths of a second. */
const quick: Clock = { ...hostClock, monotonic: () => hostClock.monotonic() * 20, sleep: (ms, signal) => hostClock.sleep(ms / 20, signal) };

interface World { agent: FakeAgent; parts: AtRestParts; record: boolean[]; news: { thawed: boolean; reason: string }[]; stop: AbortController }

async function world(t: TestContext): Promise<World> {
  const agent = await FakeAgent.start(t);
  const [record, news, stop]: [boolean[], World['news'], AbortController] = [[], [], new AbortController()];
  atEnd(t, () => stop.abort());
  return { agent, record, news, stop, parts: {
    clock: quick, signal: stop.signal, frozenOnRecord: (frozen) => void record.push(frozen), thawNews: (one) => void news.push(one),
    open: (timeoutMs) => openAgentSocket({ sockets: hostSockets, clock: quick, random: hostRandom }, agent.path, timeoutMs) } };
}

/** A log switch: what it saw of the guest at its instant. */
const cutting = ({ agent }: World, seen: boolean[] = []) => async (atInstant: () => void): Promise<string> => {
  await hostClock.sleep(1);
  seen.push(agent.frozen);
  atInstant();
  return 'ended';
};

async function until(holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !holds(); await hostClock.sleep(5)) assert.ok(performance.now() < end, 'it does not come to be');
}

test('the log ends while the guest is frozen, and the guest goes on at once', async (t) => {
  const it = await world(t);
  const seen: boolean[] = [];
  assert.deepEqual(await cutAtRest(it.parts, 2000, cutting(it, seen)), { result: 'ended', failure: null });
  assert.deepEqual([seen, it.agent.frozen, it.record, it.news], [[true], false, [true, false], []]);
  assert.deepEqual(it.agent.asked, ['guest-fsfreeze-freeze', 'guest-fsfreeze-thaw']);
});

test('answers of an earlier conversation are passed over, also in pieces and after a marker', async (t) => {
  const it = await world(t);
  it.agent.greeting = Buffer.from('{"return": 2}\n{"ret\xff{"return": 12345}\n', 'latin1');
  it.agent.habits.set('guest-fsfreeze-freeze', (agent, socket) => {
    agent.frozen = true;
    socket.write('{"re');
    setTimeout(() => socket.write('turn": 1}\n'), 5);
    return null;
  });
  assert.equal((await cutAtRest(it.parts, 2000, cutting(it))).failure, null);
  assert.equal(it.agent.frozen, false);
});

/** The freeze goes wrong: never an instant at rest, never a frozen guest, and the log ends all the same. */
const FREEZES: Record<string, [Habit, RegExp]> = {
  'is refused': [() => '{"error": {"class": "GenericError", "desc": "failed to open /mnt"}}\n', /refuses guest-fsfreeze-freeze: failed to open \/mnt/],
  'is refused half-way, some of it frozen': [(agent) => {
    agent.frozen = true;
    return '{"error": {"desc": "failed to freeze /mnt"}}\n';
  }, /failed to freeze/],
  'is done and never answered': [(agent) => {
    agent.frozen = true;
    return null;
  }, /has not answered guest-fsfreeze-freeze/],
  'is done, and the agent hangs up': [(agent, socket) => {
    agent.frozen = true;
    socket.destroy();
    return null;
  }, /has ended/],
  'is answered with garbage': [(agent) => {
    agent.frozen = true;
    return 'HTTP/1.1 400 Bad Request\n';
  }, /no guest agent: "HTTP/],
  'is answered with a megabyte of it': [(agent) => {
    agent.frozen = true;
    return 'x'.repeat(1_100_000);
  }, /no guest agent: "1048576 bytes/],
  'is answered with half a line': [(agent) => {
    agent.frozen = true;
    return '{"return": ';
  }, /has not answered/],
  'is answered with a strange value': [(agent) => {
    agent.frozen = true;
    return '{"return": {"frozen": "yes"}}\n';
  }, /answers the freeze with \{"frozen"/],
  'finds no file system': [() => '{"return": 0}\n', /no file system to freeze/],
};
for (const [what, [habit, reason]] of Object.entries(FREEZES)) {
  test(`a freeze that ${what}: the log ends without it, and the guest is thawed`, async (t) => {
    const it = await world(t);
    it.agent.habits.set('guest-fsfreeze-freeze', habit);
    const { result, failure } = await cutAtRest(it.parts, 2000, cutting(it));
    assert.equal(result, 'ended');
    assert.match(failure!, reason);
    await until(() => !it.agent.frozen && it.record.at(-1) === false);
    assert.ok(it.agent.asked.includes('guest-fsfreeze-thaw'));
  });
}

test('a freeze that is done after its time was over is thawed all the same', async (t) => {
  const it = await world(t);
  it.agent.habits.set('guest-fsfreeze-freeze', () => null);
  it.agent.habits.set('guest-sync-delimited', (agent) => (agent.asked.length === 0 || agent.frozen ? undefined : null));
  const { failure } = await cutAtRest(it.parts, 2000, cutting(it));
  assert.match(failure!, /has not answered guest-fsfreeze-freeze/);
  assert.deepEqual(it.record, [true], 'on record until it is known');
  assert.equal(it.news[0]?.thawed, false);
  it.agent.frozen = true;
  await until(() => !it.agent.frozen);
  await until(() => it.news.at(-1)?.thawed === true);
  assert.deepEqual(it.record, [true, false]);
});

test('a log that does not end in its time: the guest goes on, and the instant is none at rest', async (t) => {
  const it = await world(t);
  let thawedBefore = false;
  const { failure } = await cutAtRest(it.parts, 500, async (atInstant) => {
    assert.equal(it.agent.frozen, true);
    await until(() => !it.agent.frozen);
    thawedBefore = true;
    atInstant();
    return 'late';
  });
  assert.equal(thawedBefore, true);
  assert.match(failure!, /could not be ended within 500 ms/);
});

test('a log that cannot be ended: the guest goes on, and the failure is that of the log', async (t) => {
  const it = await world(t);
  await assert.rejects(cutAtRest(it.parts, 2000, () => Promise.reject(new Error('no room'))), /no room/);
  assert.deepEqual([it.agent.frozen, it.record], [false, [true, false]]);
});

test('a guest that had gone on by itself before the instant was not at rest', async (t) => {
  const it = await world(t);
  const { failure } = await cutAtRest(it.parts, 2000, async (atInstant) => {
    it.agent.frozen = false;
    atInstant();
    return 'ended';
  });
  assert.match(failure!, /gone on by itself/);
});

test('an agent that does not answer the thaw is asked until it does', async (t) => {
  const it = await world(t);
  let deaf = 6;
  it.agent.habits.set('guest-fsfreeze-thaw', () => (--deaf > 0 ? (deaf % 2 === 0 ? null : '{"error": {"desc": "busy"}}\n') : undefined));
  const { failure } = await cutAtRest(it.parts, 2000, cutting(it));
  assert.match(failure!, /did not confirm the thaw/);
  await until(() => !it.agent.frozen && it.record.at(-1) === false);
  assert.deepEqual(it.news.map(({ thawed }) => thawed), [false, true]);
});

test('nobody at the socket, a mute agent, another program: no freeze was asked for, nothing is on record', async (t) => {
  const it = await world(t);
  it.agent.habits.set('guest-sync-delimited', () => null);
  assert.match((await cutAtRest(it.parts, 2000, cutting(it))).failure!, /has not answered guest-sync-delimited/);
  it.agent.habits.set('guest-sync-delimited', () => '\xff{"QMP": {"version": {}}}\n');
  assert.match((await cutAtRest(it.parts, 2000, cutting(it))).failure!, /no guest agent/);
  await it.agent.close();
  assert.equal(existsSync(it.agent.path), false);
  assert.match((await cutAtRest(it.parts, 2000, cutting(it))).failure!, /nobody answers at the socket/);
  assert.deepEqual([it.record, it.agent.asked], [[], []]);
});

test('a server that finds a freeze on record thaws; where no guest is any more, there is nothing to thaw', async (t) => {
  const it = await world(t);
  it.agent.frozen = true;
  await thawBehind(it.parts);
  assert.deepEqual([it.agent.frozen, it.record, it.news.map(({ thawed }) => thawed)], [false, [false], [true]]);
  await it.agent.close();
  await thawBehind(it.parts);
  assert.match(it.news.at(-1)!.reason, /no guest at that socket/);
});
