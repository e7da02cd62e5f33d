/** Guests started and stopped by a user's program, on real servers: through every kind of failover, and when the program fails or hangs. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../rig/at-end.ts';
import { DOMAIN } from '../../src/failover/adapters/domain-xml.suite.ts';
import { FakeAgent } from '../../src/failover/guest-agent/fake-agent.suite.ts';
import { startLibvirtd } from '../rig/libvirtd.ts';
import type { Pair, Status } from '../rig/pair.ts';
import { temporaryFolder } from '../rig/program.ts';
import type { TestServer } from '../rig/server.ts';
import { guestWrites, replicatingPair, type EventLine } from './resync-rig.ts';

interface Run { action: string; endTime: string | null; failure: { code: string; message: string; remedy: string } | null; output: string }
interface Shown extends Status { mode: string; hypervisor: { adapter: string; guest: Run | null; testGuest: Run | null } }

/** The guest is a program that holds a connection to the first disk, as QEMU would. In the file ACTION.behaviour: what to do instead. */
const GUEST = `#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo "$1 $UNDERSTUDY_ROLE $UNDERSTUDY_GUEST_NAME" >> said
case "$(cat "$1.behaviour" 2>/dev/null)" in
  fails) echo "no such bridge: br7"; exit 7 ;;
  hangs) echo "waiting for the bridge"; echo $$ > hanging.pid; sleep 1000 ;;
  lies) exit 0 ;;
esac
pid="$UNDERSTUDY_GUEST_NAME.pid"
off() { [ ! -e "$pid" ] || { kill "$(cat "$pid")" 2>/dev/null; while [ -e "/proc/$(cat "$pid")/fd/0" ]; do sleep 0.05; done; rm -f "$pid"; }; }
case "$1" in
  start | start-test)
    [ ! -e "$pid" ] || exit 0
    exec qemu-storage-daemon --daemonize --pidfile "$PWD/$pid" --blockdev \\
      "driver=nbd,node-name=d,server.type=unix,server.path=$UNDERSTUDY_DISK_0_SOCKET,export=$UNDERSTUDY_DISK_0_EXPORT" ;;
  stop | power-off | stop-test) off ;;
esac
`;

class Guests {
  readonly folder: string;
  readonly path: string;
  readonly server: TestServer;
  readonly vm: string;

  private constructor(server: TestServer, vm: string, folder: string) {
    [this.server, this.vm, this.folder, this.path] = [server, vm, folder, join(folder, 'guest')];
  }

  static async on(t: TestContext, server: TestServer, vm: string): Promise<Guests> {
    // What is to be done at the end is done in this order: the folder must be there still.
    let guests: Guests | null = null;
    atEnd(t, async () => {
      for (const name of [vm, `${vm} - Test`, 'hanging']) await guests?.kill(name);
    });
    guests = new Guests(server, vm, await temporaryFolder(t));
    await writeFile(guests.path, GUEST);
    await chmod(guests.path, 0o755);
    await server.json('set', vm, '--adapter', 'command', '--adapter-command', guests.path, '--adapter-timeout', '2');
    return guests;
  }

  behave(action: string, behaviour: 'fails' | 'hangs' | 'lies' | ''): Promise<void> {
    return writeFile(join(this.folder, `${action}.behaviour`), behaviour);
  }

  /** What the program was asked since the last look. */
  async said(): Promise<string[]> {
    const text = await readFile(join(this.folder, 'said'), 'utf8').catch(() => '');
    await writeFile(join(this.folder, 'said'), '');
    return text.split('\n').filter((line) => line !== '');
  }

  async runs(name = this.vm): Promise<boolean> {
    return (await this.#pid(name)) !== null;
  }

  shown(): Promise<Shown> {
    return this.server.json<Shown>('status', this.vm);
  }

  async #pid(name: string): Promise<number | null> {
    const pid = Number(await readFile(join(this.folder, `${name}.pid`), 'utf8').catch(() => ''));
    return pid > 0 ? pid : null;
  }

  /** Of a program that hangs the whole group: its server may have been killed before it. */
  async kill(name: string): Promise<void> {
    const pid = await this.#pid(name);
    try {
      if (pid !== null) process.kill(name === 'hanging' ? -pid : pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

async function pairWithGuests(t: TestContext): Promise<{ pair: Pair; berlin: Guests; munich: Guests }> {
  const pair = await replicatingPair(t, { sizes: [16 << 20] });
  const berlin = await Guests.on(t, pair.primary, pair.vm);
  const munich = await Guests.on(t, pair.replica, pair.vm);
  await guestWrites(pair, 0, [{ at: '1M', length: '64k', byte: 1 }]);
  await pair.primary.json('sync-now', pair.vm);
  return { pair, berlin, munich };
}

const failed = (run: Run | null): string | undefined => run?.failure?.code;

test('a planned failover moves the guest, and home again, without a hand laid on it', { timeout: 180_000 }, async (t) => {
  const { pair, berlin, munich } = await pairWithGuests(t);
  const { vm, primary, replica } = pair;
  await primary.json('guest', 'start', vm);
  assert.equal(await berlin.runs(), true);
  assert.deepEqual(await berlin.said(), ['start primary vm1']);
  for (const words of [['--adapter', 'vmware'], ['--network', 'default'], ['--guest-address', 'eth0=10.0.0.5'], ['--guest-address', 'eth0=10.0.0.5/99'],
    ['--adapter-command', 'none'], ['--adapter-timeout', '0']]) {
    assert.equal((await primary.cli('set', vm, ...words, '--json')).status, 2, words.join(' '));
  }

  const agent = await FakeAgent.start(t);
  agent.interfaces.push({ 'name': 'ens3', 'hardware-address': '52:54:00:00:00:01' });
  await replica.json('set', vm, '--guest-agent', agent.path, '--guest-address', 'eth7=10.1.0.5/24');
  await primary.json('failover', vm, '--prepare');
  assert.deepEqual([await berlin.said(), await berlin.runs()], [['stop primary vm1'], false]);
  assert.equal((await primary.cli('guest', 'start', vm, '--json')).status, 3, 'a guest on a side that keeps guests out');
  await replica.json('failover', vm, '--planned');
  assert.deepEqual([await munich.said(), await munich.runs()], [['start replica vm1'], true]);
  const events = () => replica.json<EventLine[]>('events', vm, '--limit', '100');
  // The address is set behind the failover; its failure is told, and undoes nothing.
  const gone = await replica.until<EventLine[]>(['events', vm, '--limit', '100'], (list) => list.some(({ id }) => id === 'GuestAddressFailed'));
  assert.match(gone.find(({ id }) => id === 'GuestAddressFailed')!.message, /no network card eth7, but ens3/);
  assert.match((await munich.shown()).healthDetails.join(' '), /The guest did not get its new address: the guest has no network card eth7/);
  await replica.json('set', vm, '--guest-address', '52:54:00:00:00:01=10.1.0.5/24,gateway=10.1.0.1');
  const reversed = await replica.json<Shown>('reverse', vm);
  assert.deepEqual([reversed.state, reversed.mode], ['Replicating', 'Primary']);
  assert.deepEqual([await munich.said(), await munich.runs()], [['stop replica vm1', 'start primary vm1'], true]);
  assert.deepEqual([reversed.hypervisor.guest?.action, failed(reversed.hypervisor.guest)], ['start', undefined]);
  await replica.until<EventLine[]>(['events', vm, '--limit', '100'], (list) => list.some(({ id }) => id === 'GuestAddressSet'));
  assert.deepEqual(agent.ran.map(({ args }) => args.slice(3)), [['ens3', '10.1.0.5/24', '10.1.0.1']]);
  assert.deepEqual((await events()).map(({ id }) => id)
    .filter((id) => ['GuestStarted', 'GuestStopped'].includes(String(id))), ['GuestStarted', 'GuestStopped', 'GuestStarted']);
  await replica.json('failover', vm, '--prepare');
  await primary.json('failover', vm, '--planned');
  assert.deepEqual([await munich.runs(), await berlin.runs()], [false, true]);
});

test('a test guest comes and goes with its test, also when a failover ends it', { timeout: 180_000 }, async (t) => {
  const { pair: { vm, replica }, munich } = await pairWithGuests(t);
  await replica.json('failover', vm, '--test');
  assert.deepEqual([await munich.said(), await munich.runs('vm1 - Test')], [['start-test replica vm1 - Test'], true]);
  await replica.json('failover', 'cancel', vm);
  assert.deepEqual([await munich.said(), await munich.runs('vm1 - Test')], [['stop-test replica vm1 - Test'], false]);
  assert.equal((await munich.shown()).hypervisor.testGuest, null);

  await replica.json('failover', vm, '--test');
  await munich.behave('stop-test', 'fails');
  await replica.json('failover', vm);
  const { state, hypervisor } = await munich.shown();
  assert.deepEqual([state, failed(hypervisor.guest), await munich.runs()], ['FailedOverWaitingCompletion', undefined, true]);
  await munich.behave('power-off', 'fails');
  const refused = await replica.cli('failover', 'cancel', vm, '--json');
  assert.equal(refused.status, 5, refused.stdout);
  assert.deepEqual([(await munich.shown()).state, await munich.runs()], ['FailedOverWaitingCompletion', true], 'refused before anything has changed');
  await munich.behave('power-off', '');
  assert.equal((await replica.json<Shown>('failover', 'cancel', vm)).state, 'Replicating');
  assert.equal(await munich.runs(), false);
});

test('a guest that cannot be started undoes no failover, may be started again: the program fails, hangs, its server dies', { timeout: 180_000 }, async (t) => {
  const { pair: { vm, replica, primary }, munich } = await pairWithGuests(t);
  await primary.kill9();
  await munich.behave('start', 'fails');
  const done = await replica.cli('failover', vm, '--json');
  assert.equal(done.status, 5);
  const served = JSON.parse(done.stdout) as Shown;
  assert.equal(served.state, 'FailedOverWaitingCompletion');
  assert.equal(failed(served.hypervisor.guest), 'ADAPTER_FAILED');
  assert.match(served.hypervisor.guest!.failure!.message, /exit code 7; its last words: no such bridge: br7/);
  assert.match(done.stderr, /ADAPTER_FAILED.*br7[^]*understudy guest start 'vm1'/);
  assert.match(served.healthDetails.join(' '), /The disks are served, but the guest was not started.*guest start 'vm1'/);
  const show = await replica.json<Shown>('vm', 'show', vm);
  assert.equal(show.hypervisor.guest?.output, 'no such bridge: br7');

  await munich.behave('start', 'hangs');
  assert.equal((await replica.cli('guest', 'start', vm, '--json')).status, 5);
  assert.equal(failed((await munich.shown()).hypervisor.guest), 'ADAPTER_TIMED_OUT');

  await replica.json('set', vm, '--adapter-timeout', '60');
  for (const end of [() => replica.stop(), () => replica.kill9()]) {
    const asked = replica.cli('guest', 'start', vm, '--json').catch(() => undefined);
    await replica.until<Shown>(['status', vm], ({ hypervisor }) => hypervisor.guest?.endTime === null);
    await end();
    await asked;
    await replica.start();
    const { state, hypervisor } = await munich.shown();
    assert.deepEqual([state, failed(hypervisor.guest)], ['FailedOverWaitingCompletion', 'ADAPTER_INTERRUPTED']);
  }
  await munich.behave('start', '');
  const started = await replica.json<Shown>('guest', 'start', vm);
  assert.deepEqual([failed(started.hypervisor.guest), await munich.runs()], [undefined, true]);
  assert.doesNotMatch(started.healthDetails.join(' '), /guest was not started/);
});

test('a guest that does not go off refuses prepare and reverse, with nothing changed', { timeout: 180_000 }, async (t) => {
  const { pair: { vm, replica, primary }, berlin, munich } = await pairWithGuests(t);
  await primary.json('guest', 'start', vm);
  for (const [behaviour, code, status] of [['fails', 'ADAPTER_FAILED', 5], ['hangs', 'ADAPTER_TIMED_OUT', 5], ['lies', 'GUEST_STILL_RUNS', 3]] as const) {
    await berlin.behave('stop', behaviour);
    const refused = await primary.cli('failover', vm, '--prepare', '--json');
    assert.deepEqual([refused.status, (JSON.parse(refused.stdout) as { error: { code: string } }).error.code], [status, code]);
    assert.deepEqual([(await berlin.shown()).state, await berlin.runs()], ['Replicating', true]);
  }
  await berlin.behave('stop', '');
  await primary.json('failover', vm, '--prepare');
  await replica.json('failover', vm, '--planned');
  await munich.behave('stop', 'fails');
  assert.equal((await replica.cli('reverse', vm, '--json')).status, 5);
  assert.deepEqual([(await munich.shown()).state, await munich.runs()], ['FailedOverWaitingCompletion', true]);
});

/** The definition is told behind the command that set the adapter. */
async function untilStarted(replica: TestServer, vm: string): Promise<void> {
  const end = performance.now() + 20_000;
  for (;;) {
    const done = await replica.cli('guest', 'start', vm, '--test', '--json');
    if (done.status === 0) return;
    assert.ok(performance.now() < end, `${done.stdout}${done.stderr}`);
  }
}

test('a libvirt domain travels with its relationship, and is started on the replica', { timeout: 180_000 }, async (t) => {
  const daemon = await startLibvirtd(t);
  if (typeof daemon === 'string') return t.skip(daemon);
  const uri = daemon.testUri;
  const virsh = (...words: string[]) => spawnSync('virsh', ['-q', '-c', uri, ...words], { encoding: 'utf8' });
  const pair = await replicatingPair(t, { sizes: [16 << 20] });
  const { vm, primary, replica } = pair;
  // Both hosts ask the same libvirtd, so that the replica's domain has another name.
  await replica.json('set', vm, '--adapter', 'libvirt', '--libvirt-uri', uri, '--libvirt-domain', 'standby', '--network', 'default=default');
  const noDomain = await replica.cli('failover', vm, '--test', '--json');
  assert.equal(noDomain.status, 5);
  assert.match(noDomain.stderr, /ADAPTER_NO_DOMAIN.*the primary has not told its definition/);

  const xml = DOMAIN.replace("type='qemu'", "type='test'").replace(/<nvram.*<\/nvram>/, '').replaceAll('web1/0', 'vm1/0').replace('web-one', vm)
    .replace(/<loader.*<\/loader>/, '');
  await writeFile(join(pair.folder, 'domain.xml'), xml);
  assert.equal(virsh('define', join(pair.folder, 'domain.xml')).status, 0);
  await primary.json('set', vm, '--adapter', 'libvirt', '--libvirt-uri', uri);
  await primary.json('guest', 'start', vm);
  assert.equal(virsh('domstate', vm).stdout.trim(), 'running');
  await untilStarted(replica, vm);
  const testXml = virsh('dumpxml', 'standby - Test').stdout;
  assert.match(testXml, /<source protocol='nbd' name='vm1 - Test\/0'>\s*<host transport='unix' socket='[^']*replica\/nbd.sock'/);
  assert.match(testXml, /<link state='down'\/>/);
  await replica.json('failover', 'cancel', vm);
  assert.notEqual(virsh('domstate', 'standby - Test').status, 0, 'the test domain is forgotten');

  await primary.json('failover', vm, '--prepare');
  assert.equal(virsh('domstate', vm).stdout.trim(), 'shut off');
  virsh('undefine', vm);
  await replica.json('failover', vm, '--planned');
  const standby = virsh('dumpxml', 'standby').stdout;
  assert.match(standby, /<source network='default'/);
  assert.match(standby, /5f0b8a9e-2c1d-4e3f-8a7b-6c5d4e3f2a1b/);
  assert.equal((await replica.json<Shown>('failover', 'cancel', vm)).state, 'Replicating');
  assert.notEqual(virsh('domstate', 'standby').status, 0);
});
