/** Application-consistent points through a guest agent, on real servers: made, failed, and a server killed with the guest frozen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeAgent } from '../../src/failover/guest-agent/fake-agent.suite.ts';
import type { Status } from '../rig/pair.ts';
import { guestWrites, replicatingPair, type EventLine } from './resync-rig.ts';

interface Point { id: string; kind: string }
type Shown = Status & { applicationConsistentHours: number; applicationConsistentAttempt: { failure: string | null } | null };

test('points at rest: made by the agent, standard when it fails, and never a frozen guest, also when the server is killed', { timeout: 120_000 }, async (t) => {
  const agent = await FakeAgent.start(t);
  // An "hour" of nothing: every set that is ended is due, and a point.
  const pair = await replicatingPair(t, { sizes: [16 << 20], env: { UNDERSTUDY_POINT_INTERVAL_SEC: '0' }, enable: ['--recovery-history', '9'] });
  const { primary, replica, vm } = pair;
  const kinds = async () => (await replica.json<Point[]>('points', vm)).map(({ kind }) => kind);
  const ids = async (server = primary) => (await server.json<EventLine[]>('events', vm, '--limit', '1000')).map(({ id }) => id);
  let at = 0;
  const cycle = async () => {
    await guestWrites(pair, 0, [{ at: `${++at}M`, length: '64k', byte: at }]);
    await primary.json('sync-now', vm);
  };
  await cycle();
  assert.deepEqual(agent.asked, []);
  assert.equal((await primary.cli('set', vm, '--app-consistent-hours', '13', '--json')).status, 2);
  await primary.json('set', vm, '--app-consistent-hours', '1', '--guest-agent', agent.path);

  await cycle();
  assert.deepEqual([agent.asked, agent.frozen], [['guest-fsfreeze-freeze', 'guest-fsfreeze-thaw'], false]);
  agent.habits.set('guest-fsfreeze-freeze', () => '{"error": {"desc": "hook has failed with status 1"}}\n');
  await cycle();
  agent.habits.clear();
  await cycle();
  assert.deepEqual((await kinds()).slice(0, 4), ['standard', 'application-consistent', 'standard', 'application-consistent']);
  assert.deepEqual((await ids()).filter((id) => id === 'ApplicationConsistentPointFailed').length, 1);
  const { applicationConsistentHours, applicationConsistentAttempt } = await primary.json<Shown>('status', vm);
  assert.deepEqual([applicationConsistentHours, applicationConsistentAttempt?.failure], [1, null]);

  // The server dies between freeze and thaw; the one that follows thaws.
  const frozen = Promise.withResolvers<void>();
  agent.habits.set('guest-fsfreeze-freeze', () => {
    agent.frozen = true;
    frozen.resolve();
    return null;
  });
  await guestWrites(pair, 0, [{ at: '9M', length: '64k', byte: 9 }]);
  const asked = primary.cli('sync-now', vm, '--json').catch(() => undefined);
  await frozen.promise;
  await primary.kill9();
  await asked;
  assert.equal(agent.frozen, true);
  agent.habits.clear();
  await primary.start();
  await primary.until<EventLine[]>(['events', vm, '--limit', '1000'], (events) => events.some(({ id }) => id === 'GuestThawed'));
  assert.equal(agent.frozen, false);
  await cycle();
  assert.equal((await kinds()).filter((kind) => kind === 'application-consistent').length, 3);
});
