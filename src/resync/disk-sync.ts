/**
 * `disk compare` and `disk sync`: two disks made known equal, or equal, with no server at all. Either may be a path,
 * an NBD URI, or `[USER@]HOST:PATH` through a remote shell, where `disk serve --stdio` answers.
 *
 * Running a sync again is how it is resumed: what is equal by then costs a compare and no transfer. No cursor is kept
 * between runs, because nothing proves that neither disk was written meanwhile.
 */
import { stat } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { MemoryDisk } from '../disk/memory-disk.ts';
import { openDisk } from '../disk/open-disk.ts';
import { createRawDisk } from '../disk/raw-disk.ts';
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
import { compareLocal, syncLocal } from './compare/local.ts';
import type { CompareMode, CompareProgress } from './compare/options.ts';
import { type DiskPlace, RemoteShell, type RemoteOptions, parsePlace } from './compare/remote-shell.ts';
import { runSource } from './compare/source.ts';
import { runTarget } from './compare/target.ts';

export type { CompareProgress } from './compare/options.ts';

export interface DiskSyncOptions extends RemoteOptions {
  clock: Pick<Clock, 'monotonic'>;
  signal?: AbortSignal;
  onProgress?: (progress: CompareProgress) => void;
  /** Default: zstd at level 3, since a link is slower than that. */
  compute?: Compute;
  /** Default true: fail with DISK_IN_USE when another program may write to one of the disks. */
  lock?: boolean;
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
}

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
  return { comparedBytes, differingBytes, sentBytes, wireBytes, seconds, equal };
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
    const target = await openTarget(to.location, source.virtualSize, options);
    try {
      const run = options.mode === 'mend' ? syncLocal : compareLocal;
      return await run(source, target, { ...sideOptions(options), sameSectorSize: false });
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

function sideOptions({ compute = hostCompute({ level: 3 }), signal, onProgress }: RunOptions) {
  return { compute, ...(signal && { signal }), ...(onProgress && { onProgress }) };
}

const lockOf = ({ lock }: { lock?: boolean }) => (lock === undefined ? {} : { lock });

/** A disk that is missing is made, or imagined as one hole when nothing is to be written. */
async function openTarget(
  location: string,
  size: number | null,
  { mode, create, ...rest }: RunOptions | ServeOptions,
): Promise<VirtualDisk> {
  const found = await openDisk(location, { readOnly: mode === 'compare-only', ...lockOf(rest) }).catch(
    (error: unknown) => {
      const missing = error instanceof UnderstudyError && error.code === 'DISK_NOT_FOUND';
      if (!missing || !create || size === null || /^[a-z][a-z0-9+.-]*:/i.test(location)) throw error;
      return null;
    },
  );
  if (found !== null) return found;
  return mode === 'mend' ? createRawDisk(location, size!) : new MemoryDisk(size!, { location, readOnly: true });
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
  return withRemote(from, options, { role: 'source', create: null }, async (channel, virtualSize) => {
    const target = await openTarget(location, virtualSize, options);
    try {
      return await runTarget(channel, { ...sideOptions(options), base: target, target, allow: options.mode });
    } finally {
      await target.close();
    }
  });
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
}

type ServeOptions = { mode: CompareMode; create: boolean; lock?: boolean };

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
  const { compute = hostCompute({ level: 3 }), signal, lock } = options;
  const channel = new StreamChannel(stdin, stdout, compute);
  const conversation = new Conversation(channel);
  const side = { compute, ...(signal && { signal }) };
  let disk: VirtualDisk | null = null;
  try {
    const serve = await conversation.run(signal, async () => {
      const asked = decodeJson((await conversation.expect(FRAME.serve)).body, serveSchema, 'a request to serve');
      const { role, mode, create } = asked;
      disk =
        role === 'source'
          ? await openDisk(path, { readOnly: true, ...lockOf(options) })
          : await openTarget(path, create, { mode, create: create !== null, ...(lock === undefined ? {} : { lock }) });
      const { virtualSize, logicalSectorSize } = disk;
      await conversation.send(FRAME.serve, encodeJson({ virtualSize, logicalSectorSize }));
      return { role, mode, disk };
    });
    const result =
      serve.role === 'source'
        ? await runSource(channel, { ...side, disk: serve.disk, mode: serve.mode, sameSectorSize: false })
        : await runTarget(channel, { ...side, base: serve.disk, target: serve.disk, allow: serve.mode });
    await new Promise<void>((resolve) => stdout.end(resolve));
    return result;
  } finally {
    await (disk as VirtualDisk | null)?.close();
  }
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
