/**
 * `disk compare` and `disk sync`: two disks made known equal, or equal, with no server at all. Either may be a path,
 * an NBD URI, or `[USER@]HOST:PATH` through a remote shell, where `disk serve --stdio` answers.
 *
 * Running a sync again is how it is resumed: what is equal by then costs a compare and no transfer. No cursor is kept
 * between runs, because nothing proves that neither disk was written meanwhile. With a diff disk (sync-target.ts) the same
 * holds: what it has got by then is compared as part of the target.
 */
import { stat } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { openDisk } from '../disk/open-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { Clock, Compute } from '../model/ports.ts';
import { Conversation } from './compare/conversation.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import {
  COMPARE_VERSION,
  type CompareResult,
  FRAME,
  type Serve,
  decodeJson,
  encodeJson,
  serveSchema,
  welcomeSchema,
} from './compare/frames.ts';
import { hostCompute } from './compare/host-compute.ts';
import { runLocal } from './compare/local.ts';
import type { CompareMode, CompareProgress } from './compare/options.ts';
import { type DiskPlace, RemoteShell, type RemoteOptions, parsePlace } from './compare/remote-shell.ts';
import { runSource } from './compare/source.ts';
import { runTarget } from './compare/target.ts';
import { PAGE_BYTES } from './compare/tree-shape.ts';
import { openTarget, type SyncTarget } from './sync-target.ts';

export type { CompareProgress } from './compare/options.ts';

export interface DiskSyncOptions extends RemoteOptions {
  clock: Pick<Clock, 'monotonic'>;
  signal?: AbortSignal;
  onProgress?: (progress: CompareProgress) => void;
  /** Default: zstd at level 3, since a link is slower than that. */
  compute?: Compute;
  /** Default true: fail with DISK_IN_USE when another program may write to one of the disks. */
  lock?: boolean;
  /** The second disk is seen through this diff disk, and a sync writes there; on the host of that disk. */
  diff?: string;
  /** As of the compare engine: how much has to be sent again at most after a kill. */
  checkpointBytes?: { compared: number; mended: number };
}

export interface DiskCompareResult {
  equal: boolean;
  comparedBytes: number;
  differingBytes: number;
  firstDifference: number | null;
  seconds: number;
}

export interface DiskSyncResult {
  comparedBytes: number;
  differingBytes: number;
  sentBytes: number;
  wireBytes: number;
  seconds: number;
  /** Before the sync. */
  equal: boolean;
  /** Of a dry run: what a sync would send, if nothing shrank. */
  wouldSendBytes?: number;
}

/** What a differing page of 4 KiB costs besides itself: its digests, and its part of the frames. */
const PAGE_OVERHEAD_BYTES = 64;

/**
 * Fails with DISK_SIZE_MISMATCH, with the codes of `openDisk`, and with those of the compare
 * (docs/operating/errors.md).
 */
export async function diskCompare(a: string, b: string, options: DiskSyncOptions): Promise<DiskCompareResult> {
  const { seconds, result } = await timed(options, () =>
    runPlaces(parsePlace(a), parsePlace(b), { ...options, mode: 'compare-only', create: false }),
  );
  const { equal, comparedBytes, differingBytes, firstDifference } = result;
  return { equal, comparedBytes, differingBytes, firstDifference, seconds };
}

/**
 * Makes `dest` equal to `source` and durable; a missing `dest` is created as a sparse raw image. `dryRun` only
 * compares: then nothing is created, written or sent.
 */
export async function diskSync(
  source: string,
  dest: string,
  options: DiskSyncOptions & { dryRun?: boolean },
): Promise<DiskSyncResult> {
  const mode = options.dryRun === true ? 'compare-only' : 'mend';
  const [from, to] = [parsePlace(source), parsePlace(dest)];
  await refuseSameFile(from, to);
  const { seconds, result } = await timed(options, () => runPlaces(from, to, { ...options, mode, create: true }));
  const { comparedBytes, differingBytes, sentBytes, wireBytes, equal } = result;
  const wouldSendBytes = differingBytes + (differingBytes / PAGE_BYTES) * PAGE_OVERHEAD_BYTES + wireBytes;
  return { comparedBytes, differingBytes, sentBytes, wireBytes, seconds, equal, ...(mode === 'compare-only' && { wouldSendBytes }) };
}

async function timed<T>({ clock }: DiskSyncOptions, work: () => Promise<T>): Promise<{ seconds: number; result: T }> {
  const start = clock.monotonic();
  const result = await work();
  return { seconds: (clock.monotonic() - start) / 1000, result };
}

interface RunOptions extends DiskSyncOptions {
  mode: CompareMode;
  create: boolean;
}

async function runPlaces(from: DiskPlace, to: DiskPlace, options: RunOptions): Promise<CompareResult> {
  if (from.kind === 'remote' && to.kind === 'remote') {
    throw new UnderstudyError(
      'usage',
      'BOTH_DISKS_REMOTE',
      `${from.host}:${from.path} and ${to.host}:${to.path} are both on other hosts`,
      'Run the command on one of the two hosts.',
    );
  }
  if (from.kind === 'remote') return pull(from, (to as Extract<DiskPlace, { kind: 'local' }>).location, options);
  const source = await openDisk(from.location, { readOnly: true, ...lockOf(options) });
  try {
    if (to.kind === 'remote') return await push(source, to, options);
    return await withTarget(to.location, source.virtualSize, options, (target) =>
      runLocal(source, target, { ...sideOptions(options), mode: options.mode, sameSectorSize: false }),
    );
  } finally {
    await source.close();
  }
}

function sideOptions({ compute = hostCompute({ level: 3 }), signal, onProgress, checkpointBytes }: RunOptions) {
  return { compute, ...(signal && { signal }), ...(onProgress && { onProgress }), ...(checkpointBytes && { checkpointBytes }) };
}

const lockOf = ({ lock }: { lock?: boolean | undefined }) => (lock === undefined ? {} : { lock });

/** `size`: of the disk that is made when there is none and `create` allows it. */
async function withTarget<T>(
  location: string,
  size: number | null,
  { mode, create, lock, diff }: Pick<RunOptions, 'mode' | 'create' | 'lock' | 'diff'>,
  work: (target: SyncTarget) => Promise<T>,
): Promise<T> {
  const target = await openTarget(location, { mode, sourceSize: create ? size : null, lock, diff });
  let failed = true;
  try {
    const result = await work(target);
    failed = false;
    return result;
  } finally {
    await target.close(failed);
  }
}

async function push(
  source: VirtualDisk,
  to: Extract<DiskPlace, { kind: 'remote' }>,
  options: RunOptions,
): Promise<CompareResult> {
  const create = options.create ? source.virtualSize : null;
  return withRemote(to, options, { role: 'target', create }, (channel) =>
    runSource(channel, { ...sideOptions(options), disk: source, mode: options.mode, sameSectorSize: false }),
  );
}

async function pull(
  from: Extract<DiskPlace, { kind: 'remote' }>,
  location: string,
  options: RunOptions,
): Promise<CompareResult> {
  const { diff: _, ...there } = options;
  return withRemote(from, there, { role: 'source', create: null }, (channel, virtualSize) =>
    withTarget(location, virtualSize, options, ({ base, target }) =>
      runTarget(channel, { ...sideOptions(options), base, target, allow: options.mode }),
    ),
  );
}

async function withRemote(
  place: Extract<DiskPlace, { kind: 'remote' }>,
  options: RunOptions,
  ask: Pick<Serve, 'role' | 'create'>,
  run: (channel: StreamChannel, virtualSize: number) => Promise<CompareResult>,
): Promise<CompareResult> {
  const shell = new RemoteShell(place.host, place.path, options);
  let failure: unknown = null;
  try {
    const channel = new StreamChannel(shell.stdout, shell.stdin, sideOptions(options).compute);
    const conversation = new Conversation(channel);
    const { virtualSize } = await conversation.run(options.signal, async () => {
      await conversation.send(
        FRAME.serve,
        encodeJson({ version: COMPARE_VERSION, mode: options.mode, ...ask } satisfies Serve),
      );
      return decodeJson((await conversation.expect(FRAME.serve)).body, welcomeSchema, 'a welcome');
    });
    return await run(channel, virtualSize);
  } catch (error) {
    failure = error;
    throw await shell.end(error);
  } finally {
    if (failure === null) await shell.end(null);
  }
}

export interface ServeStdioOptions {
  compute?: Compute;
  signal?: AbortSignal;
  lock?: boolean;
  /** As of `DiskSyncOptions`, when this side is the target. */
  diff?: string;
}

/**
 * `disk serve --stdio PATH`: one compare over standard input and output, in the role that the other side asks for.
 * Resolves when the last byte has left; a failure has been told to the other side when it is thrown. Hand in
 * `asyncStdout()`.
 */
export async function serveStdio(
  stdin: Readable,
  stdout: Writable,
  path: string,
  options: ServeStdioOptions = {},
): Promise<CompareResult> {
  const { compute = hostCompute({ level: 3 }), signal, lock, diff } = options;
  const channel = new StreamChannel(stdin, stdout, compute);
  const conversation = new Conversation(channel);
  const side = { compute, ...(signal && { signal }) };
  let opened: SyncTarget | null = null;
  let failed = true;
  try {
    const { role, mode, base, target } = await conversation.run(signal, async () => {
      const asked = decodeJson((await conversation.expect(FRAME.serve)).body, serveSchema, 'a request to serve');
      opened = asked.role === 'source' ? await openSource(path, lock) : await openTarget(path, { mode: asked.mode, sourceSize: asked.create, lock, diff });
      const { virtualSize, logicalSectorSize } = opened.target;
      await conversation.send(FRAME.serve, encodeJson({ virtualSize, logicalSectorSize }));
      return { ...asked, ...opened };
    });
    const result =
      role === 'source'
        ? await runSource(channel, { ...side, disk: target, mode, sameSectorSize: false })
        : await runTarget(channel, { ...side, base, target, allow: mode });
    failed = false;
    await new Promise<void>((resolve) => stdout.end(resolve));
    return result;
  } finally {
    await (opened as SyncTarget | null)?.close(failed);
  }
}

async function openSource(path: string, lock: boolean | undefined): Promise<SyncTarget> {
  const disk = await openDisk(path, { readOnly: true, ...lockOf({ lock }) });
  return { base: disk, target: disk, close: () => disk.close() };
}

/**
 * Standard output for `serveStdio`. Where it is a pipe or a socket this runtime writes without blocking, which matters:
 * a source that could not read while it writes could wait for a target that cannot read while it writes. A second stream
 * on the same descriptor would not do, since the first one has made it non-blocking.
 */
export function asyncStdout(): Writable {
  return process.stdout;
}

async function refuseSameFile(from: DiskPlace, to: DiskPlace): Promise<void> {
  if (from.kind === 'remote' || to.kind === 'remote') return;
  const identity = ({ location }: { location: string }) =>
    stat(location, { bigint: true }).then(
      ({ dev, ino }) => `${dev}:${ino}`,
      () => null,
    );
  const first = await identity(from);
  if (first === null || first !== (await identity(to))) return;
  throw new UnderstudyError(
    'usage',
    'DISK_SAME',
    `${from.location} and ${to.location} are the same disk`,
    'Name two different disks.',
  );
}
