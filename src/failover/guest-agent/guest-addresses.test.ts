import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../../test/rig/at-end.ts';
import { hostClock, hostRandom } from '../../disk/host-clock.ts';
import { UnderstudyError } from '../../model/errors.ts';
import type { GuestAddress } from '../../model/hypervisor.ts';
import type { Clock } from '../../model/ports.ts';
import { openAgentSocket } from './agent-channel.ts';
import { FakeAgent } from './fake-agent.suite.ts';
import { BOOT_MS, giveAddresses, SCRIPT, type AddressParts } from './guest-addresses.ts';
import { hostSockets } from './host-sockets.ts';

/** Seconds pass as milliseconds. */
const quick: Clock = { ...hostClock, monotonic: () => hostClock.monotonic() * 1000, sleep: (ms, signal) => hostClock.sleep(ms / 1000, signal) };
const ADDRESS: GuestAddress = { card: '52:54:00:00:00:01', address: '10.1.0.5', prefix: 24, gateway: '10.1.0.1', dns: ['10.1.0.2'] };

const notYet = () => Promise.reject(new UnderstudyError('io', 'GUEST_AGENT_SILENT', 'not yet', 'wait'));

async function world(t: TestContext): Promise<{ agent: FakeAgent; parts: AddressParts }> {
  const agent = await FakeAgent.start(t);
  agent.interfaces.push({ 'name': 'lo', 'hardware-address': '00:00:00:00:00:00' }, { 'name': 'ens3', 'hardware-address': '52:54:00:00:00:01' },
    { 'name': '$(reboot)', 'hardware-address': '52:54:00:00:00:02' }, null, 'x');
  return { agent, parts: { clock: quick, signal: new AbortController().signal, macOf: (mac) => mac,
    open: () => openAgentSocket({ sockets: hostSockets, clock: hostClock, random: hostRandom }, agent.path, 5000) } };
}

test('each card gets its address, by its MAC or its name; a test guest has other MACs', async (t) => {
  const { agent, parts } = await world(t);
  await giveAddresses({ ...parts, macOf: (mac) => (mac === '52:54:00:00:00:aa' ? '52:54:00:00:00:01' : mac) },
    [{ ...ADDRESS, card: '52:54:00:00:00:aa' }, { ...ADDRESS, card: 'ens3', address: 'fd00::5', prefix: 64, gateway: null, dns: [] }]);
  assert.deepEqual(agent.ran.map(({ path, args }) => [path, args.slice(0, 2).includes(SCRIPT), ...args.slice(3)]), [
    ['/bin/sh', true, 'ens3', '10.1.0.5/24', '10.1.0.1', '10.1.0.2'], ['/bin/sh', true, 'ens3', 'fd00::5/64', '-']]);
});

test('a guest that boots is waited for, one that never answers is not', async (t) => {
  const { agent, parts } = await world(t);
  let refusals = 3;
  await giveAddresses({ ...parts, open: (ms) => (refusals-- > 0 ? notYet() : parts.open(ms)) },
    [ADDRESS]);
  assert.equal(agent.ran.length, 1);
  const began = quick.monotonic();
  await assert.rejects(giveAddresses({ ...parts, open: () => notYet() }, [ADDRESS]),
    /not yet/);
  assert.ok(quick.monotonic() - began >= BOOT_MS);
  const stop = new AbortController();
  const given = giveAddresses({ ...parts, signal: stop.signal, open: () => notYet() }, [ADDRESS]);
  stop.abort(new Error('it is turned off'));
  await assert.rejects(given, /it is turned off/);
});

test('a card that is not there, and a script that fails or is not allowed, are said with what the guest says', async (t) => {
  const { agent, parts } = await world(t);
  await assert.rejects(giveAddresses(parts, [{ ...ADDRESS, card: 'eth9' }]), (error: UnderstudyError) => {
    assert.equal(error.code, 'GUEST_CARD_NOT_FOUND');
    assert.match(error.message, /no network card eth9, but lo .*, ens3 \(52:54:00:00:00:01\)$/);
    return true;
  });
  agent.exitCode = 2;
  await assert.rejects(giveAddresses(parts, [ADDRESS]), (error: UnderstudyError) => {
    assert.equal(error.code, 'GUEST_ADDRESS_REFUSED');
    assert.match(error.message, /10\.1\.0\.5 for ens3: exit code 2: RTNETLINK: no/);
    return true;
  });
  agent.habits.set('guest-exec', () => '{"error": {"desc": "Command guest-exec has been disabled"}}\n');
  await assert.rejects(giveAddresses(parts, [ADDRESS]), /guest-exec has been disabled/);
});

test('the script sets address, gateway and name servers, and stops at what fails', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'understudy-addresses-'));
  atEnd(t, () => rmSync(folder, { recursive: true }));
  const resolv = join(folder, 'resolv.conf');
  // `ip` and the rest are played by functions; what they were asked is what they say.
  const run = (stand: string, ...args: string[]) =>
    spawnSync('sh', ['-c', `${stand}\n${SCRIPT.replace('/etc/resolv.conf', resolv)}`, 'x', ...args], { encoding: 'utf8' });
  const said = run('ip() { echo "ip $*"; }; command() { return 1; }', 'ens3', '10.1.0.5/24', '10.1.0.1', '10.1.0.2', '10.1.0.3');
  assert.deepEqual(said.stdout.trim().split('\n'), ['ip link set dev ens3 up', 'ip addr flush dev ens3 scope global', 'ip addr add 10.1.0.5/24 dev ens3',
    'ip route replace default via 10.1.0.1 dev ens3']);
  assert.equal(readFileSync(resolv, 'utf8'), 'nameserver 10.1.0.2\nnameserver 10.1.0.3\n');
  const failed = run('ip() { [ "$1" != addr ]; }', 'ens3', '10.1.0.5/24', '-');
  assert.notEqual(failed.status, 0);
});
