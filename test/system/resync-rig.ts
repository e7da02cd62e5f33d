/** What tests of resynchronization ask of a pair of real servers: causes, what must be seen of them, and the repair. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { answerInside } from '../rig/answer-inside.ts';
import { atEnd, type Ending } from '../rig/at-end.ts';
import { qemuName, type TestFormat } from '../rig/disk-formats.ts';
import { Pair, type Status, type VmShape } from '../rig/pair.ts';
import { mustRun, temporaryFolder } from '../rig/program.ts';
import type { TestServer } from '../rig/server.ts';

export interface ResyncStatus {
  phase: string;
  rung: string | null;
  reason: string | null;
  trigger: number | null;
  percent: number | null;
  disks: { path: string; totalBytes: number; cursor: number; comparedBytes: number; differingBytes: number; sentBytes: number }[];
}

export interface EventLine {
  time: string;
  id: string | number;
  message: string;
  data: Record<string, unknown>;
}

export interface PairOptions {
  format?: TestFormat;
  sizes?: number[];
  /** Instead of new disks of those sizes in the pair's folder. */
  disks?: string[];
  env?: Record<string, string>;
  enable?: string[];
  add?: string[];
  /** Before the servers are started. */
  prepare?: (pair: Pair) => Promise<void>;
}

/**
 * A pair that replicates and never resynchronizes by itself. The command line runs inside this process: it is asked very
 * often.
 */
export async function replicatingPair(t: Ending, options: PairOptions = {}): Promise<Pair> {
  const pair = new Pair(await temporaryFolder(t), 'vm1', options.env ?? {}, options.format);
  atEnd(t, () => pair.kill());
  for (const server of [pair.primary, pair.replica]) answerInside(server);
  await options.prepare?.(pair);
  await Promise.all([pair.primary.start(), pair.replica.start()]);
  await pair.authorize();
  if (options.disks !== undefined) pair.disks.push(...options.disks);
  else await pair.makeDisks(options.sizes ?? [64 << 20, 16 << 20]);
  pair.vmId = (await pair.primary.json<VmShape>('vm', 'add', pair.vm, ...pair.disks.flatMap((disk) => ['--disk', disk]),
    ...(options.add ?? []))).vmId;
  await pair.enable(30, ['--auto-resync', 'off', ...(options.enable ?? [])]);
  await pair.replicate();
  return pair;
}

/** One guest write per element, then a flush, over NBD. */
export async function guestWrites(pair: Pair, disk: number,
  writes: { at: string; length: string; byte: number }[]): Promise<void> {
  const uri = (await pair.uris())[disk]!;
  await qemuIo(uri, writes.map(({ at, length, byte }) => `write -P ${byte} ${at} ${length}`));
}

/** Edits an image as somebody would who does not know of replication. */
export const editFile = (path: string, at: string, byte: number): Promise<void> => qemuIo(path, [`write -P ${byte} ${at} 64k`]);

async function qemuIo(image: string, commands: string[]): Promise<void> {
  await mustRun('qemu-io', ['-f', image.includes('://') ? 'raw' : qemuName(image), image], { input: [...commands, 'flush', 'quit', ''].join('\n') });
}

export const resyncStatus = (pair: Pair): Promise<ResyncStatus> => pair.primary.json<ResyncStatus>('resync', 'status', pair.vm);

export async function events(server: TestServer, pair: Pair): Promise<EventLine[]> {
  const found = await server.json<EventLine[]>('events', pair.vm, '--limit', '1000');
  return found.sort((a, b) => a.time.localeCompare(b.time));
}

/** Required, with everything that must be seen of it: state, health with its message, event, rung and plan. */
export async function assertRequired(
  pair: Pair,
    expected: { trigger: number; rung: 'suspect-regions' | 'full-compare' | 'full-copy'; reason: RegExp; timeoutMs?: number },
): Promise<Status> {
  const status = await pair.untilState('WaitingForStartResynchronize', expected.timeoutMs ?? 20_000);
  assert.equal(status.health, 'Critical');
  assert.match(status.healthDetails[0]!, /Resynchronization is required because .*Resume replication/);
  assert.match(status.healthDetails[0]!, expected.reason);
  assert.equal(status.resynchronizeStartTime, null, 'nothing starts by itself');
  const seen = await resyncStatus(pair);
  assert.deepEqual({ trigger: seen.trigger, phase: seen.phase }, { trigger: expected.trigger, phase: 'required' });
  assert.match(seen.reason!, expected.reason);
  const event = (await events(pair.primary, pair)).findLast(({ id }) => id === 'ResynchronizationRequired');
  if (expected.trigger !== 8) {
    assert.equal(event?.data['trigger'], expected.trigger, JSON.stringify(event));
    assert.match(String(event.data['reason']), expected.reason);
  }
  const plan = await pair.primary.json<{ rung: string; reason: string; readBytes: number }>('resync', 'plan', pair.vm);
  assert.equal(plan.rung, expected.rung, plan.reason);
  return status;
}

/** Repaired by hand: replicating, equal at this moment, the compare on record, and nothing left of the diff disks. */
export async function repair(pair: Pair, ...words: string[]): Promise<void> {
  await pair.primary.json('resume', pair.vm, ...words);
  await pair.untilState('Replicating');
  await assertEqual(pair);
  const seen = await events(pair.primary, pair);
  assert.ok(seen.some(({ id }) => id === 29242) && seen.some(({ id }) => id === 29244));
  await diffFilesGone(pair);
}

/** R21: not even a person overwrites what the replica may have without being told what it is, and saying so. */
export async function refusesToOverwrite(pair: Pair): Promise<void> {
  for (const words of [[], ['--resynchronize'], ['--at', new Date(Date.now() + 3_600_000).toISOString()]]) {
    const { status, stdout } = await pair.primary.cli('resume', pair.vm, ...words, '--json');
    assert.equal(status, 3, stdout);
    const { error } = JSON.parse(stdout) as { error: { code: string; message: string; remedy: string } };
    assert.equal(error.code, 'REPLICA_MAY_BE_NEWER');
    assert.match(error.message, /would overwrite the state of \d{4}-\S+Z \(log \d+\) that the replica on replica has, which may be later than the primary's/);
    assert.match(error.remedy, /failover vm1\. To give it up: understudy resume vm1 --overwrite-replica/);
  }
  const plan = await pair.primary.json<{ overwrites: string }>('resync', 'plan', pair.vm);
  assert.match(plan.overwrites, /which may be later/);
  assert.equal((await pair.status()).state, 'WaitingForStartResynchronize');
}

/** The disks must be equal once everything is shipped; no guest may be writing. */
export async function assertEqual(pair: Pair): Promise<void> {
  await pair.primary.json('sync-now', pair.vm);
  const { state } = await pair.status();
  assert.equal(state, 'Replicating');
  await pair.compare();
}

export async function diffFiles(pair: Pair): Promise<string[]> {
  return (await readdir(dirname(pair.replicaPath(0)))).filter((name) => name.includes('.diff'));
}

/** They go behind the back of whoever waits for the end of a run. */
export async function diffFilesGone(pair: Pair): Promise<void> {
  for (let left = 300; left > 0 && (await diffFiles(pair)).length > 0; left--) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(await diffFiles(pair), []);
}

export async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

export async function crash(server: TestServer): Promise<void> {
  await server.kill9();
  await server.start();
}

/** Holds the lock of an image as another program does that has it open for writing; returns what lets it go. */
export async function holdImage(t: Ending, path: string): Promise<() => Promise<void>> {
  const child = spawn('qemu-io', ['-f', qemuName(path), path], { stdio: ['pipe', 'pipe', 'inherit'] });
  atEnd(t, () => child.kill('SIGKILL'));
  // It answers when it has opened the image.
  child.stdin.write('length\n');
  await once(child.stdout, 'data');
  return async () => {
    child.stdin.end('quit\n');
    if (child.exitCode === null) await once(child, 'exit');
  };
}

/** A guest that is told what to do one command at a time (those of qemu-io); `ask` resolves with what it printed. */
export async function slowGuest(t: Ending, pair: Pair, disk = 0): Promise<{ ask(command: string): Promise<string> }> {
  const child = spawn('qemu-io', ['-f', 'raw', (await pair.uris())[disk]!], { stdio: ['pipe', 'pipe', 'inherit'] });
  atEnd(t, () => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (data: Buffer) => (said += data.toString()));
  const ask = async (command: string): Promise<string> => {
    said = '';
    // The prompt comes back when the command is done; an asynchronous write counts as done when it is under way.
    child.stdin.write(`${command}\n`);
    while (!said.includes('qemu-io> ')) await once(child.stdout, 'data');
    return said;
  };
  while (!said.includes('qemu-io> ')) await once(child.stdout, 'data');
  return { ask };
}
