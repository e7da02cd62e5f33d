import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../../test/rig/at-end.ts';
import { startLibvirtd } from '../../../test/rig/libvirtd.ts';
import { hostClock, hostRandom } from '../../disk/host-clock.ts';
import { hostFiles } from '../../disk/host-files.ts';
import { UnderstudyError } from '../../model/errors.ts';
import { adapterSuite, assertEnded, guestOf, type AdapterWorld } from './adapters.suite.ts';
import { DOMAIN } from './domain-xml.suite.ts';
import { hostPrograms } from './host-programs.ts';
import { LibvirtAdapter, type DomainDefinition, type LibvirtSettings } from './libvirt.ts';

const { signal } = new AbortController();
const EXPORTS = { 'web1/0': 'd0', 'web1/2': 'd1' };

/** A virsh that fails or hangs when the file `broken` says so; else the real one, or one that keeps each domain's state in a file. */
const VIRSH = (real: boolean) => `#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$(cat broken 2>/dev/null)" in
  fails) echo "error: no such bridge: br7" >&2; exit 7 ;;
  hangs) echo "waiting for the bridge"; sh -c 'trap "" TERM; echo $$ > left; exec sleep 1000' & wait ;;
esac
${real ? 'exec virsh "$@"' : ''}
shift 3
domain="domain.$2"
case $1 in
  domstate) if [ -e "$domain" ]; then cat "$domain"; else echo "error: failed to get domain '$2'" >&2; exit 1; fi ;;
  define) name="$(sed -n 's/.*<name>\\(.*\\)<\\/name>.*/\\1/p' "$2")"; cp "$2" "xml.$name"; [ -e "domain.$name" ] || echo "shut off" > "domain.$name" ;;
  start) echo running > "$domain" ;;
  shutdown) [ -e deaf ] || echo "shut off" > "$domain" ;;
  destroy) echo "shut off" > "$domain" ;;
  undefine) rm "$domain" ;;
  dumpxml) cat "xml.$3" ;;
  *) exit 2 ;;
esac
`;

interface World extends AdapterWorld {
  folder: string;
  make(settings?: Partial<LibvirtSettings>, definition?: DomainDefinition | null): LibvirtAdapter;
}

async function world(t: TestContext, libvirtUri: string, real: boolean): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-libvirt-'));
  atEnd(t, () => rm(folder, { recursive: true, force: true }));
  const virsh = join(folder, 'virsh');
  await writeFile(virsh, VIRSH(real));
  await chmod(virsh, 0o755);
  const programs = hostPrograms(hostClock);
  let made: string | null = null;
  const make: World['make'] = (settings = {}, definition = { xml: DOMAIN, exports: EXPORTS }) => new LibvirtAdapter(
    { programs, clock: hostClock, files: hostFiles, random: hostRandom, folder: join(folder, 'xml'), definition: () => definition, virsh,
      isMade: (_vmId, domain) => made === domain, made: (_vmId, domain) => void (made = domain) },
    { timeoutSec: 1, libvirtUri, libvirtDomain: null, networks: {}, testNetwork: null, ...settings });
  return {
    folder, make, adapter: make(real ? { timeoutSec: 1 } : {}),
    runs: async (name) => {
      const words = ['-c', libvirtUri, '-q', 'domstate', name];
      return (await programs.run(virsh, words, { env: { PATH: process.env['PATH']! }, timeoutMs: 20_000 })).stdout.trim() === 'running';
    },
    breakIt: (how) => writeFile(join(folder, 'broken'), how),
    assertNothingLeft: () => assertEnded(join(folder, 'left')),
  };
}

adapterSuite('libvirt', (t) => world(t, 'qemu:///system', false));

test('on a primary the domain is the user\'s own: started, never defined anew, never forgotten', async (t) => {
  const { folder, make, runs } = await world(t, 'qemu:///system', false);
  const adapter = make({ timeoutSec: 20 });
  const guest = guestOf({ role: 'primary' });
  await assert.rejects(adapter.start(guest, signal), (error: UnderstudyError) => error.code === 'ADAPTER_NO_DOMAIN');
  await writeFile(join(folder, 'domain.web1'), 'shut off\n');
  await adapter.start(guest, signal);
  await adapter.powerOff(guest, signal);
  await adapter.start(guest, signal);
  assert.equal(await runs('web1'), true);
  assert.deepEqual((await readdir(folder)).filter((name) => name.startsWith('xml')), []);
  await writeFile(join(folder, 'xml.web1'), DOMAIN);
  assert.equal(await adapter.definition(guest, signal), DOMAIN);
  assert.equal(await make({ timeoutSec: 20, libvirtDomain: 'other' }).definition(guest, signal), null);
});

test('on a replica without a definition a domain made by hand is started and left defined', async (t) => {
  const { folder, make } = await world(t, 'qemu:///system', false);
  const adapter = make({ timeoutSec: 20, libvirtDomain: 'by-hand' }, null);
  await assert.rejects(adapter.start(guestOf(), signal), /primary has not told its definition/);
  await writeFile(join(folder, 'domain.by-hand'), 'shut off\n');
  await adapter.start(guestOf(), signal);
  await adapter.powerOff(guestOf(), signal);
  assert.equal((await readFile(join(folder, 'domain.by-hand'), 'utf8')).trim(), 'shut off');
});

test('a domain that its user has defined on a replica stays as it is, also after a failover home; one that was made is made anew', async (t) => {
  const { folder, make } = await world(t, 'qemu:///system', false);
  const adapter = make({ timeoutSec: 20 });
  const domains = async () => (await readdir(folder)).filter((name) => /^(xml|domain)\.web1$/.test(name));
  await writeFile(join(folder, 'domain.web1'), 'shut off\n');
  await adapter.start(guestOf(), signal);
  await adapter.powerOff(guestOf(), signal);
  assert.deepEqual(await domains(), ['domain.web1'], 'neither defined nor forgotten');
  await rm(join(folder, 'domain.web1'));

  await adapter.start(guestOf(), signal);
  assert.deepEqual(await domains(), ['domain.web1', 'xml.web1']);
  await adapter.stop(guestOf(), signal);
  await writeFile(join(folder, 'xml.web1'), 'old');
  await adapter.start(guestOf(), signal);
  assert.match(await readFile(join(folder, 'xml.web1'), 'utf8'), /<name>web1<\/name>/);
  // It has become the primary's, and so its user's own.
  await adapter.stop(guestOf({ role: 'primary' }), signal);
  await adapter.start(guestOf({ role: 'primary' }), signal);
  await writeFile(join(folder, 'xml.web1'), 'edited by its user');
  await adapter.stop(guestOf(), signal);
  await adapter.start(guestOf(), signal);
  await adapter.powerOff(guestOf(), signal);
  assert.equal(await readFile(join(folder, 'xml.web1'), 'utf8'), 'edited by its user');
  assert.deepEqual(await domains(), ['domain.web1', 'xml.web1']);
});

test('a guest that does not hear its power button is said to be on still', async (t) => {
  const { folder, make } = await world(t, 'qemu:///system', false);
  await writeFile(join(folder, 'domain.web1'), 'running\n');
  await writeFile(join(folder, 'deaf'), '');
  await assert.rejects(make().stop(guestOf(), signal), (error: UnderstudyError) => {
    assert.equal(error.code, 'ADAPTER_TIMED_OUT');
    assert.match(error.message, /virsh shutdown for guest 'web1' had not ended after 1 s/);
    return true;
  });
});

test('a real libvirt takes the domain, with its test driver and with QEMU', { timeout: 120_000 }, async (t) => {
  const daemon = await startLibvirtd(t);
  if (typeof daemon === 'string') return t.skip(daemon);
  const { socket, folder, testUri } = daemon;
  const virsh = (uri: string, ...words: string[]) => spawnSync('virsh', ['-q', '-c', uri, ...words], { encoding: 'utf8' });

  const { make } = await world(t, testUri, true);
  const adapter = make({ timeoutSec: 30 },
    // The driver knows no flags of undefine.
    { xml: DOMAIN.replace("type='qemu'", "type='test'").replace(/<nvram.*<\/nvram>/, ''), exports: EXPORTS });
  const guests = [guestOf(), guestOf({ test: true })];
  for (const guest of guests) await adapter.start(guest, signal);
  assert.deepEqual(guests.map(({ name }) => virsh(testUri, 'domstate', name).stdout.trim()), ['running', 'running']);
  await adapter.stop(guests[0]!, signal);
  await adapter.stop(guests[0]!, signal);
  assert.equal(virsh(testUri, 'domstate', 'web1').stdout.trim(), 'shut off');
  await adapter.start(guests[0]!, signal);
  for (const guest of guests) await adapter.powerOff(guest, signal);
  assert.match(virsh(testUri, 'list', '--all', '--name').stdout, /^test\s*$/);

  if (spawnSync('qemu-nbd', ['--version']).error !== undefined || spawnSync('qemu-system-x86_64', ['--version']).error !== undefined) return;
  const qemuUri = `qemu+unix:///session?socket=${socket}`;
  const nbd = join(folder, 'nbd.sock');
  await writeFile(join(folder, 'disk.raw'), Buffer.alloc(1 << 20));
  const server = spawn('qemu-nbd', ['-f', 'raw', '-k', nbd, '-x', 'web1/0', '-e', '4', '-t', join(folder, 'disk.raw')], { stdio: 'ignore' });
  atEnd(t, () => server.kill());
  while (spawnSync('chmod', ['666', nbd]).status !== 0) await hostClock.sleep(50);
  const real = (await world(t, qemuUri, true)).make({ timeoutSec: 60 });
  const guest = guestOf({ test: true, disks: [{ diskId: 'd0', uri: `nbd+unix:///web1%2F0?socket=${nbd}`, bytes: 1 << 20, logicalSectorSize: 512 }] });
  const said = await real.start(guest, signal);
  assert.match(said, /left out of its definition: .*qemu:commandline/);
  assert.equal(virsh(qemuUri, 'domstate', guest.name).stdout.trim(), 'running');
  assert.match(virsh(qemuUri, 'domblkinfo', guest.name, 'vda').stdout, /Capacity:\s+1048576/);
  assert.match(virsh(qemuUri, 'domif-getlink', guest.name, virsh(qemuUri, 'domiflist', guest.name).stdout.match(/52:54:[\w:]+/)![0]).stdout, /down/);
  await real.powerOff(guest, signal);
  assert.equal(virsh(qemuUri, 'domstate', guest.name).status, 1);
});
