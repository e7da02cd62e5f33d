/** A host that answers with fixed values and records what it was asked, behind the real API on a real Unix socket. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { hostClock } from '../../src/disk/host-clock.ts';
import { hostFiles } from '../../src/disk/host-files.ts';
import { runCli } from '../../src/cli/run-cli.ts';
import type { CliSurroundings } from '../../src/cli/context.ts';
import type { Clock, Logger } from '../../src/model/ports.ts';
import type { HostOperations, OperationName, Status } from '../../src/server/api/contract.ts';
import { listenOnSocket } from '../../src/server/api/http.ts';
import { socketPath } from '../../src/server/api/socket-path.ts';

export const STATUS: Status = {
  vmId: '2c9f6d1e-0d2a-4b53-8a53-3a8d4b1f6a11',
  vmName: 'web1',
  state: 'Replicating',
  stateNumber: 4,
  wmiState: 3,
  health: 'Normal',
  mode: 'Primary',
  relationship: 'Simple',
  frequencySec: 300,
  primaryServer: 'berlin',
  replicaServer: 'munich',
  lastReplicationTime: '2031-05-04T20:00:00.000Z',
  lastAppliedLogTime: null,
  pendingBytes: 3 << 20,
  autoResynchronizeEnabled: true,
  autoResynchronizeIntervalStart: '18:30:00',
  autoResynchronizeIntervalEnd: '06:00:00',
  resynchronizeStartTime: null,
  healthDetails: [],
};
const VM = {
  vmId: STATUS.vmId,
  name: 'web1',
  disks: [
    {
      path: '/srv/web1.raw',
      format: 'raw',
      virtualSize: 64 * 2 ** 30,
      uri: 'nbd+unix:///web1%2F0?socket=/run/u.sock',
    },
  ],
  attached: true,
};
const STATISTICS = {
  monitoringStartTime: '2031-05-04T07:00:00.000Z',
  monitoringEndTime: null,
  averageReplicationBytes: 4096,
  maximumReplicationBytes: 8192,
  averageLatencySeconds: 1.5,
  maximumLatencySeconds: 3,
  replicationErrors: 0,
  successfulReplications: 9,
  missedReplications: 1,
  pendingBytes: 0,
};
const HEALTH = {
  vmName: 'web1',
  health: 'Normal' as const,
  state: 'Replicating' as const,
  healthDetails: [],
  statistics: STATISTICS,
};
const EVENT = {
  time: '2031-05-04T20:00:00.000Z',
  id: 29244,
  level: 'Information' as const,
  vmName: 'web1',
  message: 'Compare finished.',
  data: { seconds: 2 },
};
const ENTRY = { fingerprint: 'AA:BB', name: 'berlin', storage: null, trustGroup: 'default' };
const RESYNC_DISK = {
  path: '/srv/web1.raw',
  totalBytes: 1 << 30,
  comparedBytes: 1 << 29,
  differingBytes: 8192,
  sentBytes: 4096,
};
const RESYNC = {
  vmName: 'web1',
  phase: 'compare',
  rung: 'suspect-regions' as const,
  reason: 'the tracking logs outgrew their limit',
  percent: 50,
  disks: [RESYNC_DISK],
  etaSeconds: 90,
  bytesPerSecond: 1 << 20,
  verify: { running: true, startTime: null, comparedBytes: 1 << 29, totalBytes: 1 << 30, differingBytes: 0, windows: 3, heldSeconds: 12 },
};
const PLAN = {
  vmName: 'web1',
  rung: 'full-compare' as const,
  reason: 'a disk was modified while the VM was off',
  readBytes: 1 << 30,
  estimatedSeconds: 600,
  disks: [{ path: '/srv/web1.raw', totalBytes: 1 << 30, readBytes: 1 << 30 }],
};
const QUEUE = [{ vmName: 'web1', standing: 'running' as const, position: 0, priority: 50, startTime: null }];
const VERIFIED = {
  vmName: 'web1',
  equal: true,
  comparedBytes: 1 << 30,
  differingBytes: 0,
  unprovenBytes: 0,
  at: '2031-05-04T20:00:00.000Z',
};
const PAST_RESYNC = {
  startTime: '2031-05-03T20:00:00.000Z', endTime: '2031-05-03T20:10:00.000Z', rung: 'full-compare' as const, reason: 'the user asked for it',
  sentBytes: 8192, seconds: 600, result: 'finished' as const,
};
const TOKEN = {
  name: 'prometheus', role: 'reader' as const, createdAt: '2031-05-04T20:00:00.000Z', expiresAt: '2032-05-04T20:00:00.000Z',
};
const POINT = { id: 'p1', time: '2031-05-04T20:00:00.000Z', kind: 'latest' as const, bytes: 0 };

/** Answers of a healthy host with one VM, `web1`; a test replaces those that it is about. */
export function fakeOperations(): HostOperations {
  const status = () => Promise.resolve(STATUS);
  const vm = () => Promise.resolve(VM);
  const entry = () => Promise.resolve(ENTRY);
  return {
    'fingerprint': () => Promise.resolve({ fingerprint: 'AA:BB', name: 'berlin' }),
    'authorize': entry,
    'unauthorize': entry,
    'authorizations': () => Promise.resolve([ENTRY]),
    'test-connection': () => Promise.resolve({ hostName: 'munich', clockSkewSeconds: 0.002, seconds: 0.01 }),
    'vm.add': vm,
    'vm.show': vm,
    'vm.attach': vm,
    'vm.stop': vm,
    'vm.resize': vm,
    'vm.remove': vm,
    'vm.list': () => Promise.resolve([VM]),
    'enable': status,
    'extend': status,
    'start': status,
    'stop-initial': status,
    'import': status,
    'suspend': status,
    'resume': status,
    'cancel-resync': status,
    'set': status,
    'remove': status,
    'reset-statistics': status,
    'failover': status,
    'failover.cancel': status,
    'failover.complete': status,
    'status': ({ name }) => Promise.resolve(name === undefined ? [STATUS] : STATUS),
    'health': ({ name }) => Promise.resolve(name === undefined ? [HEALTH] : HEALTH),
    'sync-now': () => Promise.resolve({ vmName: 'web1', logSequence: 7, bytes: 4096, seconds: 0.25 }),
    'events': () => Promise.resolve([EVENT]),
    'doctor': () => Promise.resolve([
      { check: 'free-space', ok: true, detail: '5 bytes free', remedy: null }, { check: 'catalog', ok: true, detail: 'sound', remedy: null },
    ]),
    'resync.status': () => Promise.resolve(RESYNC),
    'resync.plan': () => Promise.resolve(PLAN),
    'resync.queue': () => Promise.resolve(QUEUE),
    'resync.history': () => Promise.resolve([PAST_RESYNC]),
    'cycles': () => Promise.resolve([{ time: '2031-05-04T20:00:00.000Z', outcome: 'success', bytes: 4096, latencySeconds: 0.5 }]),
    'verify': () => Promise.resolve(VERIFIED),
    'reverse': status,
    'guest.start': status,
    'guest.stop': status,
    'points': () => Promise.resolve([POINT]),
    'console.sign-in': () => Promise.resolve({ url: 'http://127.0.0.1:7780/#token=secret', role: 'administrator', expiresAt: TOKEN.expiresAt, pageBuilt: true }),
    'console.end-sessions': () => Promise.resolve({ ended: 2 }),
    'token.add': () => Promise.resolve({ ...TOKEN, token: 'secret' }),
    'token.list': () => Promise.resolve([TOKEN]),
    'token.remove': () => Promise.resolve(TOKEN),
  };
}

const SILENT: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export interface FakeHost extends AsyncDisposable {
  dataFolder: string;
  operations: HostOperations;
  /** What was asked, in order. */
  asked: { name: OperationName; params: unknown }[];
  /** What the server logged as a defect. */
  defects: unknown[];
}

export async function startFakeHost(replaced: Partial<HostOperations> = {}): Promise<FakeHost> {
  const dataFolder = mkdtempSync(join(tmpdir(), 'understudy-cli-'));
  const operations = { ...fakeOperations(), ...replaced };
  const asked: FakeHost['asked'] = [];
  const defects: unknown[] = [];
  const recording = Object.fromEntries(
    Object.entries(operations).map(([name, run]) => [
      name,
      (params: never, context: never) => {
        asked.push({ name: name as OperationName, params });
        return run(params, context);
      },
    ]),
  ) as unknown as HostOperations;
  const log = { ...SILENT, error: (fields: object) => defects.push(fields) };
  const listener = await listenOnSocket(socketPath(dataFolder), { operations: recording, log, version: '0.0.0' });
  return {
    dataFolder,
    operations,
    asked,
    defects,
    async [Symbol.asyncDispose]() {
      await listener.close();
      rmSync(dataFolder, { recursive: true, force: true });
    },
  };
}

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
  /** The one JSON value on stdout. */
  json(): unknown;
}

/** 2031-05-04 12:00 in Berlin. */
export const NOW = Date.parse('2031-05-04T10:00:00Z');

export interface RunOptions extends Partial<CliSurroundings> {
  dataFolder?: string;
  input?: string;
  /** Called with everything written to stdout so far, at each write. */
  onStdout?: (text: string) => void;
  onStderr?: (text: string) => void;
}

/** Runs one command line inside this process. */
export async function run(words: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { dataFolder, input, onStdout, onStderr, ...surroundings } = options;
  const seen = { stdout: '', stderr: '' };
  const collect = (name: keyof typeof seen, listener?: (text: string) => void): PassThrough => {
    const stream = new PassThrough();
    stream.setEncoding('utf8').on('data', (text: string) => {
      seen[name] += text;
      listener?.(seen[name]);
    });
    return stream;
  };
  const stdin = new PassThrough();
  stdin.end(input ?? '');
  const streams = { stdin, stdout: collect('stdout', onStdout), stderr: collect('stderr', onStderr) };
  const clock: Clock = { now: () => NOW, monotonic: hostClock.monotonic, sleep: hostClock.sleep };
  const code = await runCli(words, {
    ...streams,
    env: dataFolder === undefined ? {} : { UNDERSTUDY_DATA: dataFolder },
    isTTY: { stdin: false, stdout: false, stderr: false },
    cwd: '/work-folder',
    zone: 'Europe/Berlin',
    clock,
    files: hostFiles,
    version: '1.2.3',
    signal: new AbortController().signal,
    makeServer: () => Promise.reject(new Error('this test makes no server')),
    ...surroundings,
  });
  // What was written has passed through the streams when a turn of the event loop is over.
  await new Promise((resolve) => setImmediate(resolve));
  return { code, ...seen, json: () => JSON.parse(seen.stdout) as unknown };
}
