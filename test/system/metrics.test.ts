/** `/metrics` of a real server: the names that dashboards for Windows hosts know, our own, and what deploy/ makes of them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Pair } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';

/** Of `hyperv_replica_vm.go`: name, type, labels. */
const WINDOWS: [name: string, type: 'gauge' | 'counter', labels: string[]][] = [
  ['average_replication_latency_seconds', 'gauge', ['vm']], ['average_replication_size_bytes', 'gauge', ['vm']],
  ['compression_efficiency', 'gauge', ['vm']], ['last_replication_size_bytes', 'gauge', ['vm']],
  ['network_received_bytes_total', 'counter', ['vm']], ['network_sent_bytes_total', 'counter', ['vm']],
  ['replications_total', 'counter', ['vm']], ['replication_latency_seconds', 'gauge', ['vm']],
  ['resynchronized_bytes_total', 'counter', ['vm']], ['health', 'gauge', ['vm', 'relationship']], ['state', 'gauge', ['vm', 'relationship']],
];
const OWN = [
  'lag_seconds', 'frequency_seconds', 'pending_bytes', 'missed_cycles', 'replication_errors', 'log_bytes', 'log_limit_bytes', 'change_map_regions',
  'resync_rung', 'resync_phase', 'resync_total_bytes', 'resync_compared_bytes', 'resync_differing_bytes', 'resync_sent_bytes', 'resync_queue', 'guest_io_seconds',
];

const scrape = async (address: string) => (await fetch(`http://${address}/metrics`)).text();
const hasPromtool = spawnSync('promtool', ['--version']).status === 0;

test('metrics under the names of Windows exporters and our own, as Prometheus reads them', async (t) => {
  const pair = await Pair.make(t, { sizes: [8 << 20] });
  await pair.replicate();
  await mustRun('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 1M', '-c', 'flush', (await pair.uris())[0]!]);
  await pair.primary.json('sync-now', pair.vm);
  const [primary, replica] = [await scrape(pair.primary.httpAddress), await scrape(pair.replica.httpAddress)];
  for (const [name, type, labels] of WINDOWS) {
    const full = `windows_hyperv_replica_vm_${name}`;
    assert.match(primary, new RegExp(`^# TYPE ${full} ${type}$`, 'm'));
    const side = name === 'network_received_bytes_total' ? replica : primary;
    const found = new RegExp(`^${full}{(.*)} (\\S+)$`, 'm').exec(side);
    assert.ok(found, full);
    assert.deepEqual([...found[1]!.matchAll(/(\w+)=/g)].map(([, label]) => label), labels, full);
    assert.ok(Number.isFinite(Number(found[2])), full);
  }
  for (const name of OWN) assert.match(primary, new RegExp(`^# TYPE understudy_${name} `, 'm'));
  const value = (line: string) => Number(new RegExp(`^${line.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm').exec(primary)?.[1]);
  assert.equal(value('windows_hyperv_replica_vm_health{vm="vm1",relationship="primary"}'), 1);
  assert.equal(value('windows_hyperv_replica_vm_state{vm="vm1",relationship="primary"}'), 3);
  assert.ok(value('windows_hyperv_replica_vm_replications_total{vm="vm1"}') >= 1);
  assert.ok(value('windows_hyperv_replica_vm_last_replication_size_bytes{vm="vm1"}') >= 1 << 20);
  assert.ok(value('understudy_guest_io_seconds_count{vm="vm1",operation="write"}') >= 1);
  if (!hasPromtool) return t.diagnostic('promtool is not installed: the text is not given to Prometheus itself');
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: primary, encoding: 'utf8' });
  assert.notEqual(status, 1, `promtool cannot read the text: ${stdout}${stderr}`);
});

test('a resynchronization that is required shows its rung, and how far it is', async (t) => {
  const pair = await Pair.make(t, { sizes: [8 << 20], enable: ['--auto-resync', 'off'] });
  await pair.replicate();
  await pair.primary.json('suspend', pair.vm);
  await pair.primary.json('resume', pair.vm, '--resynchronize', '--at', new Date(Date.now() + 3_600_000).toISOString());
  const text = await scrape(pair.primary.httpAddress);
  assert.match(text, /^understudy_resync_rung{vm="vm1",relationship="primary"} [0-3]$/m);
  assert.match(text, /^understudy_resync_phase{vm="vm1",relationship="primary"} 0$/m);
  assert.match(text, /^understudy_resync_total_bytes{vm="vm1",relationship="primary"} 8388608$/m);
  assert.match(text, /^understudy_resync_queue{standing="scheduled"} 1$/m);
  assert.match(text, /^windows_hyperv_replica_vm_state{vm="vm1",relationship="primary"} 9$/m);
});

test('alerts and the dashboard name only metrics that there are', () => {
  const rules = readFileSync('deploy/prometheus/understudy.rules.yml', 'utf8');
  const dashboard = readFileSync('deploy/grafana/understudy.json', 'utf8');
  const known = new Set([...WINDOWS.map(([name]) => `windows_hyperv_replica_vm_${name}`), ...OWN.map((name) => `understudy_${name}`),
    'understudy_guest_io_seconds_bucket', 'understudy_log_limit_reached_in_seconds']);
  const expressions = [
    ...[...rules.matchAll(/^ +expr: (.*)$/gm)].map(([, text]) => text!),
    ...(JSON.parse(dashboard) as { panels: { targets: { expr: string }[] }[] }).panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
  ];
  const unknown = expressions.flatMap((text) => text.match(/\b(?:windows_hyperv|understudy)_\w+/g) ?? []).filter((name) => !known.has(name));
  assert.ok(expressions.length > 20);
  assert.deepEqual(unknown, []);
});

test('Prometheus itself accepts the alerts, and they fire when they should', { skip: hasPromtool ? false : 'promtool is not installed' }, async () => {
  await mustRun('promtool', ['check', 'rules', 'deploy/prometheus/understudy.rules.yml']);
  await mustRun('promtool', ['test', 'rules', 'deploy/prometheus/understudy.rules.test.yml']);
});
