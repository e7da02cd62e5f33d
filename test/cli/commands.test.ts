/** Every command against a real API on a real socket: what it asks the host, what people read, what scripts read. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMMANDS } from '../../src/cli/program.ts';
import { OPERATIONS } from '../../src/server/api/contract.ts';
import type { OperationName } from '../../src/server/api/contract.ts';
import { run, startFakeHost } from './fake-host.ts';

const F = '9f'.repeat(32);

interface Row {
  words: string[];
  asks: OperationName;
  params: object;
  shows: RegExp;
  code?: number;
}

const ROWS: Row[] = [
  { words: ['fingerprint'], asks: 'fingerprint', params: {}, shows: /^Name +berlin\nFingerprint +AA:BB\n$/ },
  { words: ['authorize', F], asks: 'authorize', params: { fingerprint: F }, shows: /TrustGroup +default/ },
  {
    words: ['authorize', 'any', '--name', 'b', '--storage', 'here', '--trust-group', 'g'],
    asks: 'authorize',
    params: { fingerprint: 'any', name: 'b', storage: '/work-folder/here', trustGroup: 'g' },
    shows: /berlin/,
  },
  { words: ['console'], asks: 'console.sign-in', params: { role: 'administrator' }, shows: /^http:\/\/127\.0\.0\.1:7780\/#token=secret\n$/ },
  {
    words: ['console', '--read-only', '--session', '0.5'],
    asks: 'console.sign-in',
    params: { role: 'reader', sessionHours: 0.5 },
    shows: /#token=/,
  },
  { words: ['console', '--end-sessions'], asks: 'console.end-sessions', params: {}, shows: /^2 sessions ended\.\n$/ },
  { words: ['token', 'add', 'x', '--read-only', '--days', '3'], asks: 'token.add', params: { name: 'x', role: 'reader', days: 3 }, shows: /^secret\n$/ },
  { words: ['token', 'list'], asks: 'token.list', params: {}, shows: /prometheus +reader/ },
  { words: ['token', 'remove', 'prometheus'], asks: 'token.remove', params: { name: 'prometheus' }, shows: /prometheus/ },
  { words: ['resync', 'history', 'web1'], asks: 'resync.history', params: { name: 'web1' }, shows: /finished +full-compare +8 KiB +10/ },
  { words: ['cycles', 'web1'], asks: 'cycles', params: { name: 'web1' }, shows: /success +4\.?0? KiB/ },
  { words: ['resume', 'web1', '--resynchronize', '--off-peak'], asks: 'resume', params: { name: 'web1', resynchronize: true, offPeak: true }, shows: /web1/ },
  {
    words: ['test-connection', 'munich:7743', '--fingerprint', F],
    asks: 'test-connection',
    params: { replica: 'munich:7743', fingerprint: F },
    shows: /Host +munich\nAnswered in .*\nIts clock +\+0\.002 s/,
  },
  { words: ['unauthorize', F], asks: 'unauthorize', params: { fingerprint: F }, shows: /berlin/ },
  {
    words: ['authorizations'],
    asks: 'authorizations',
    params: {},
    shows: /^Name +StorageLoc +TrustGroup +Fingerprint\nberlin/,
  },
  {
    words: ['vm', 'add', 'web1', '--disk', 'a.raw', '/b.raw', '--disk', 'nbd://h:1/x', '--log-dir', 'logs'],
    asks: 'vm.add',
    params: { name: 'web1', disks: ['/work-folder/a.raw', '/b.raw', 'nbd://h:1/x'], logDir: '/work-folder/logs' },
    shows: /\/srv\/web1.raw +raw +64 GiB +nbd\+unix/,
  },
  {
    words: ['vm', 'list'],
    asks: 'vm.list',
    params: {},
    shows: /^Name +Attached +Disks +Size +VMId\nweb1 +yes +1 +64 GiB/,
  },
  { words: ['vm', 'show', 'web1'], asks: 'vm.show', params: { name: 'web1' }, shows: /Attached +yes/ },
  {
    words: ['vm', 'attach', 'web1'],
    asks: 'vm.attach',
    params: { name: 'web1' },
    shows: /-blockdev driver=nbd.*reconnect-delay=60/,
  },
  {
    words: ['vm', 'attach', 'web1', '--trust-disk'],
    asks: 'vm.attach',
    params: { name: 'web1', trustDisk: true },
    shows: /<reconnect delay='60'\/>/,
  },
  { words: ['vm', 'stop', 'web1'], asks: 'vm.stop', params: { name: 'web1' }, shows: /web1/ },
  {
    words: ['vm', 'resize', 'web1', '--disk', '/srv/web1.raw', '--size', '10G'],
    asks: 'vm.resize',
    params: { name: 'web1', path: '/srv/web1.raw', size: 10 * 2 ** 30 },
    shows: /web1/,
  },
  { words: ['vm', 'remove', 'web1'], asks: 'vm.remove', params: { name: 'web1' }, shows: /web1 is forgotten/ },
  {
    words: [
      'enable',
      'web1',
      '--replica',
      'munich:7743',
      '--fingerprint',
      F,
      '--frequency',
      '30',
      '--recovery-history',
      '4',
      '--auto-resync',
      '22:00-05:30',
      '--exclude-disk',
      'swap.raw',
    ],
    asks: 'enable',
    params: {
      name: 'web1',
      replica: 'munich:7743',
      fingerprint: F,
      settings: {
        frequencySec: 30,
        recoveryHistory: 4,
        excludedDisks: ['/work-folder/swap.raw'],
        autoResync: { enabled: true, intervalStart: '22:00:00', intervalEnd: '05:30:00' },
      },
    },
    shows: /State +Replicating/,
  },
  {
    words: ['extend', 'web1', '--replica', 'oslo:7743', '--fingerprint', F, '--frequency', '900'],
    asks: 'extend',
    params: { name: 'web1', replica: 'oslo:7743', fingerprint: F, settings: { frequencySec: 900 } },
    shows: /State/,
  },
  ...(['start', 'suspend', 'resume', 'cancel-resync', 'remove', 'reset-statistics', 'stop-initial', 'status', 'health'] as const).map((asks) => (
    { words: [asks, 'web1', '--extended'], asks, params: { name: 'web1', extended: true }, shows: /State|state/ })),
  { words: ['start', 'web1'], asks: 'start', params: { name: 'web1' }, shows: /State +Replicating/ },
  {
    words: ['start', 'web1', '--at', '22:00'],
    asks: 'start',
    params: { name: 'web1', at: '2031-05-04T20:00:00.000Z' },
    shows: /State/,
  },
  {
    words: ['start', 'web1', '--export', 'out'],
    asks: 'start',
    params: { name: 'web1', exportTo: '/work-folder/out' },
    shows: /State/,
  },
  {
    words: ['start', 'web1', '--use-existing'],
    asks: 'start',
    params: { name: 'web1', useExisting: true },
    shows: /State/,
  },
  { words: ['stop-initial', 'web1'], asks: 'stop-initial', params: { name: 'web1' }, shows: /State/ },
  {
    words: ['import', 'web1', '--from', '/mnt/usb'],
    asks: 'import',
    params: { name: 'web1', from: '/mnt/usb' },
    shows: /State/,
  },
  {
    words: ['status'],
    asks: 'status',
    params: {},
    shows: /^VMName +State +Health +Mode +FrequencySec +PrimaryServer +ReplicaServer +Relationship\nweb1 +Repl/,
  },
  {
    words: ['status', 'web1'],
    asks: 'status',
    params: { name: 'web1' },
    shows: /Last replication +2031-05-04 22:00:00\n/,
  },
  { words: ['health'], asks: 'health', params: {}, shows: /web1 +Replicating +Normal/ },
  { words: ['health', 'web1', '--check'], asks: 'health', params: { name: 'web1' }, shows: /9 out of 10 \(90 %\)/ },
  {
    words: ['sync-now', 'web1'],
    asks: 'sync-now',
    params: { name: 'web1' },
    shows: /^Log 7 is applied: 4 KiB in 0.25 s\.\n$/,
  },
  { words: ['suspend', 'web1'], asks: 'suspend', params: { name: 'web1' }, shows: /State/ },
  { words: ['resume', 'web1'], asks: 'resume', params: { name: 'web1' }, shows: /State/ },
  {
    words: ['resume', 'web1', '--resynchronize', '--at', '2031-05-06 01:30'],
    asks: 'resume',
    params: { name: 'web1', resynchronize: true, at: '2031-05-05T23:30:00.000Z' },
    shows: /State/,
  },
  {
    words: ['resume', 'web1', '--continue'],
    asks: 'resume',
    params: { name: 'web1', continue: true },
    shows: /State/,
  },
  { words: ['cancel-resync', 'web1'], asks: 'cancel-resync', params: { name: 'web1' }, shows: /State/ },
  {
    words: ['set', 'web1', '--auto-resync', 'off'],
    asks: 'set',
    params: { name: 'web1', settings: { autoResync: { enabled: false } } },
    shows: /State/,
  },
  {
    words: [
      'set',
      'web1',
      '--log-limit',
      '0.5',
      '--resync-priority',
      '10',
      '--disk-rate',
      '64M',
      '--link-rate',
      '0',
      '--verify-every',
      '7',
      '--app-consistent-hours',
      '4',
      '--keep-recovery-points',
    ],
    asks: 'set',
    params: {
      name: 'web1',
      settings: {
        applicationConsistentHours: 4,
        logLimitPercent: 0.5,
        resyncPriority: 10,
        keepRecoveryPoints: true,
        verify: { everyDays: 7 },
        resyncShare: { diskBytesPerSec: 64 << 20, linkBytesPerSec: null },
      },
    },
    shows: /State/,
  },
  { words: ['remove', 'web1'], asks: 'remove', params: { name: 'web1' }, shows: /State/ },
  { words: ['reset-statistics', 'web1'], asks: 'reset-statistics', params: { name: 'web1' }, shows: /State/ },
  {
    words: ['events', 'web1', '--since', '2031-01-01T00:00:00Z', '--limit', '5'],
    asks: 'events',
    params: { name: 'web1', since: '2031-01-01T00:00:00.000Z', limit: 5 },
    shows: /29244 +web1 +Compare finished/,
  },
  { words: ['points', 'web1'], asks: 'points', params: { name: 'web1' }, shows: /p1 +2031-05-04 22:00:00 +latest/ },
  {
    words: ['resync', 'status', 'web1'],
    asks: 'resync.status',
    params: { name: 'web1' },
    shows: /Rung +suspect-regions[^]*Verify +512 MiB of 1 GiB in 3 windows; apply held for 12 s[^]*512 MiB/,
  },
  { words: ['resync', 'plan', 'web1'], asks: 'resync.plan', params: { name: 'web1' }, shows: /Rung +full-compare/ },
  { words: ['resync', 'queue'], asks: 'resync.queue', params: {}, shows: /web1 +running +0 +50/ },
  {
    words: ['verify', 'web1', '--repair'],
    asks: 'verify',
    params: { name: 'web1', repair: true },
    shows: /Equal +yes/,
  },
  { words: ['failover', 'web1'], asks: 'failover', params: { name: 'web1', kind: 'unplanned' }, shows: /State/ },
  {
    words: ['failover', 'web1', '--test', '--point', 'p1'],
    asks: 'failover',
    params: { name: 'web1', kind: 'test', point: 'p1' },
    shows: /State/,
  },
  {
    words: ['set', 'web1', '--adapter', 'libvirt', '--libvirt-domain', 'none', '--network', 'default=bridge:br0', '--network', '*=lan',
      '--guest-agent', '/run/web1.qga', '--guest-address', '52:54:00:12:34:56=10.1.0.5/24,gateway=10.1.0.1,dns=10.1.0.2,dns=10.1.0.3'],
    asks: 'set',
    params: { name: 'web1', hypervisor: {
      adapter: 'libvirt', libvirtDomain: null, networks: { 'default': 'bridge:br0', '*': 'lan' }, guestAgent: '/run/web1.qga',
      addresses: [{ card: '52:54:00:12:34:56', address: '10.1.0.5', prefix: 24, gateway: '10.1.0.1', dns: ['10.1.0.2', '10.1.0.3'] }] } },
    shows: /State/,
  },
  { words: ['guest', 'start', 'web1'], asks: 'guest.start', params: { name: 'web1' }, shows: /State/ },
  { words: ['guest', 'start', 'web1', '--test'], asks: 'guest.start', params: { name: 'web1', test: true }, shows: /State/ },
  { words: ['guest', 'stop', 'web1', '--now'], asks: 'guest.stop', params: { name: 'web1', now: true }, shows: /State/ },
  { words: ['reverse', 'web1'], asks: 'reverse', params: { name: 'web1' }, shows: /State/ },
  {
    words: ['reverse', 'web1', '--discard-primary'],
    asks: 'reverse',
    params: { name: 'web1', discardPrimary: true },
    shows: /State/,
  },
  { words: ['failover', 'cancel', 'web1'], asks: 'failover.cancel', params: { name: 'web1' }, shows: /State/ },
  { words: ['failover', 'complete', 'web1'], asks: 'failover.complete', params: { name: 'web1' }, shows: /State/ },
];

for (const { words, asks, params, shows, code = 0 } of ROWS) {
  test(`"${words.join(' ')}" asks for ${asks}, shows it to people, and gives scripts the answer as it is`, async () => {
    await using host = await startFakeHost();
    const read = await run(words, { dataFolder: host.dataFolder });
    assert.deepEqual({ code: read.code, stderr: read.stderr }, { code, stderr: '' });
    assert.match(read.stdout, shows);
    assert.deepEqual(host.asked, [{ name: asks, params }]);

    const scripted = await run([...words, '--json'], { dataFolder: host.dataFolder });
    const answer = await host.operations[asks](params as never, undefined as never);
    assert.deepEqual(scripted.json(), answer);
    assert.equal(scripted.code, code);
    assert.deepEqual(host.defects, []);
  });
}

test('every operation of the contract has a command', () => {
  const asked = new Set<string>([...ROWS.map(({ asks }) => asks), 'doctor']);
  assert.deepEqual(
    Object.keys(OPERATIONS).filter((name) => !asked.has(name)),
    [],
  );
});

test('every command has a help page with a summary, examples and exit codes', async () => {
  for (const { path, summary } of COMMANDS) {
    const { code, stdout, stderr } = await run([...path.split(' '), '--help']);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' }, path);
    assert.ok(stdout.includes(`Usage: understudy ${path}`), path);
    assert.ok(stdout.replaceAll(/\s+/g, ' ').includes(summary), path);
    assert.match(stdout, /\n {2}\$ understudy .*\n[^]*Exit codes:\n/, path);
  }
});

test('the version is shown', async () => {
  assert.deepEqual((await run(['--version'])).stdout, '1.2.3\n');
});

test('health --check says no with 1 when one VM is not Normal', async () => {
  const health = {
    vmName: 'web1',
    health: 'Warning' as const,
    state: 'Replicating' as const,
    healthDetails: ['late'],
  };
  const statistics = {
    monitoringStartTime: null,
    monitoringEndTime: null,
    averageReplicationBytes: 0,
    maximumReplicationBytes: 0,
    averageLatencySeconds: null,
    maximumLatencySeconds: null,
    replicationErrors: 0,
    successfulReplications: 0,
    missedReplications: 0,
    pendingBytes: 0,
  };
  await using host = await startFakeHost({ health: () => Promise.resolve([{ ...health, statistics }]) });
  assert.equal((await run(['health', '--check'], { dataFolder: host.dataFolder })).code, 1);
  assert.equal((await run(['health'], { dataFolder: host.dataFolder })).code, 0);
});

test('verify says no with 1 when it found a difference', async () => {
  const found = {
    vmName: 'web1',
    equal: false,
    comparedBytes: 8192,
    differingBytes: 4096,
    unprovenBytes: 0,
    at: '2031-05-04T20:00:00.000Z',
  };
  await using host = await startFakeHost({ verify: () => Promise.resolve(found) });
  const { code, stdout } = await run(['verify', 'web1'], { dataFolder: host.dataFolder });
  assert.equal(code, 1);
  assert.match(stdout, /Equal +NO\n/);
});

test('--data before or behind the command names the host, and wins over UNDERSTUDY_DATA', async () => {
  await using host = await startFakeHost();
  for (const words of [
    ['--data', host.dataFolder, 'status'],
    ['status', `--data=${host.dataFolder}`],
  ]) {
    assert.equal((await run(words, { env: { UNDERSTUDY_DATA: '/nowhere' } })).code, 0);
  }
});

test('health is coloured on a terminal, and not with NO_COLOR', async () => {
  await using host = await startFakeHost();
  const terminal = { dataFolder: host.dataFolder, isTTY: { stdin: false, stdout: true, stderr: false } };
  assert.ok((await run(['status'], terminal)).stdout.includes('\u001b[32mNormal\u001b[39m'));
  const env = { UNDERSTUDY_DATA: host.dataFolder, NO_COLOR: '1' };
  assert.ok(!(await run(['status'], { ...terminal, env })).stdout.includes('\u001b'));
});
