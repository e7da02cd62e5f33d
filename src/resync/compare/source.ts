/**
 * The source of a compare: it has the truth, drives, and keeps the cursor. Four tasks share one conversation:
 * scanning, receiving, opening differing leaves, and mending. The receiving task never waits for a send, so the two
 * sides cannot block each other.
 */
import { malformed } from './byte-cursor.ts';
import { Conversation } from './conversation.ts';
import type { Frame, FrameChannel } from './frame-channel.ts';
import {
  COMPARE_VERSION,
  type CompareResult,
  FRAME,
  type Hello,
  decodeId,
  decodeJson,
  differencesSchema,
  encodeId,
  encodeJson,
  encodePace,
  encodeRuns,
  paceOf,
  welcomeSchema,
} from './frames.ts';
import type { LeafHasher, Pace } from './leaf-hasher.ts';
import { drawKey, leafTagger } from './leaf-tags.ts';
import type { SourceOptions } from './options.ts';
import { Selection } from './selection.ts';
import { Settlement } from './settlement.ts';
import { sizeMismatch } from './mismatch.ts';
import { SourceGroups } from './source-groups.ts';
import { SourceLeaves } from './source-leaves.ts';
import { DEFAULT_SHAPE, PAGE_BYTES } from './tree-shape.ts';
import { hasherFor } from './worker-hasher.ts';

const DEFAULT_CHECKPOINT = { compared: 4 * 2 ** 30, mended: 64 * 2 ** 20 };
/** Pairs of one ranges frame: far below the frame limit. */
const RUNS_PER_FRAME = 16 * 1024;

/**
 * Compares (and mends) until everything selected is proven equal, or rejects with the first failure of either side.
 * Repeating it, from any cursor it has reported, is harmless.
 */
export async function runSource(channel: FrameChannel, options: SourceOptions): Promise<CompareResult> {
  const shape = options.shape ?? DEFAULT_SHAPE;
  const key = drawKey();
  const conversation = new Conversation(channel);
  const pace = paceOf(options.readRate?.() ?? null);
  const hasher = await hasherFor(options.disk, { ...options, shape, key, pace: toldPace(conversation, pace, options) });
  try {
    return await new Source(conversation, options, { key, hasher, pace }).run();
  } finally {
    await hasher.close();
  }
}

/** The source's own pace, which tells the target each time that it is not what was told before. */
function toldPace(conversation: Conversation, before: number | null, { pace, readRate }: Pick<SourceOptions, 'pace' | 'readRate'>): Pace {
  let told = before;
  return (bytes) => {
    const now = paceOf(readRate?.() ?? null);
    if (now !== told) conversation.post(FRAME.pace, encodePace(now));
    told = now;
    return pace?.(bytes);
  };
}

class Source {
  readonly #options: SourceOptions;
  readonly #conversation: Conversation;
  readonly #selection: Selection;
  readonly #settlement: Settlement;
  readonly #groups: SourceGroups;
  readonly #leaves: SourceLeaves;
  readonly #hello: Hello;
  #scannedBytes = 0;
  #scanned = false;
  #checkpoints = 0;
  #checkpoint: { id: number; cursor: number; cursorBytes: number } | null = null;
  #kept: { cursor: number; comparedBytes: number; sentBytes: number };
  #keeping: Promise<void> = Promise.resolve();
  #page: Buffer | null = null;
  #verdict: { differingPages: number; firstDifference: number | null } | null = null;

  constructor(conversation: Conversation, options: SourceOptions, { key, hasher, pace }: { key: Buffer; hasher: LeafHasher; pace: number | null }) {
    const shape = options.shape ?? DEFAULT_SHAPE;
    const { disk, mode, compute, ranges, cursor = 0 } = options;
    const whole = [{ offset: 0, length: disk.virtualSize }];
    const selected = (ranges ?? whole).map(({ offset, length }) => {
      const from = Math.max(offset, cursor);
      return { offset: from, length: Math.max(0, offset + length - from) };
    });
    this.#options = options;
    this.#conversation = conversation;
    this.#selection = Selection.ofRanges(selected, disk.virtualSize, shape.leafBytes);
    this.#settlement = new Settlement(this.#selection, shape, options.onDecided);
    this.#kept = { cursor, comparedBytes: 0, sentBytes: 0 };
    const nodeHashBytes = options.nodeHashBytes ?? 2;
    const pageHashBytes = options.pageHashBytes ?? (mode === 'mend' ? 2 : 16);
    this.#hello = {
      protocol: 'understudy-compare',
      version: COMPARE_VERSION,
      token: options.session?.token ?? '',
      phase: options.session?.phase ?? '',
      mode,
      virtualSize: disk.virtualSize,
      logicalSectorSize: disk.logicalSectorSize,
      sameSectorSize: options.sameSectorSize ?? true,
      ...shape,
      nodeHashBytes,
      pageHashBytes,
      key: key.toString('hex'),
      ranges: this.#selection.isWhole ? null : this.#selection.runs.length,
      pace,
    };
    const shared = {
      conversation: this.#conversation,
      selection: this.#selection,
      settlement: this.#settlement,
      shape,
      hasher,
      compute,
      tag: leafTagger(key),
      onSettled: () => this.#onSettled(),
    };
    this.#leaves = new SourceLeaves({
      ...shared,
      mode,
      hashBytes: pageHashBytes,
      paceWire: options.paceWire ?? (() => {}),
      othersWait: options.othersWait ?? (() => false),
    });
    this.#groups = new SourceGroups({
      ...shared,
      hashBytes: nodeHashBytes,
      onDiffering: (leaves) => this.#leaves.add(leaves),
      onScanned: (bytes) => {
        this.#scannedBytes += bytes;
        this.#report();
      },
    });
  }

  run(): Promise<CompareResult> {
    return this.#conversation.run(this.#options.signal, async () => {
      await this.#handshake();
      const finishing = this.#finish();
      const ended = finishing.then(() => this.#leaves.finish());
      try {
        await this.#conversation.together([
          this.#scan(),
          this.#receive(),
          this.#leaves.openLoop(),
          this.#leaves.mendLoop(),
          ended,
        ]);
      } catch (error) {
        this.#report(); // What was sent and not answered travelled all the same.
        throw error;
      }
      return finishing;
    });
  }

  async #handshake(): Promise<void> {
    const { disk } = this.#options;
    await this.#conversation.send(FRAME.hello, encodeJson(this.#hello));
    const runs = this.#hello.ranges === null ? [] : this.#selection.runs;
    let after = 0;
    for (let at = 0; at < runs.length; at += RUNS_PER_FRAME) {
      const pairs = runs.slice(at, at + RUNS_PER_FRAME).map(({ leaf, count }) => [leaf, count] as const);
      await this.#conversation.send(FRAME.ranges, encodeRuns(pairs, after));
      const last = pairs.at(-1)!;
      after = last[0] + last[1];
    }
    const { body } = await this.#conversation.expect(FRAME.hello);
    const welcome = decodeJson(body, welcomeSchema, 'a welcome');
    const mismatch = sizeMismatch(this.#hello, welcome);
    if (mismatch !== null || welcome.virtualSize !== disk.virtualSize)
      throw mismatch ?? malformed('a welcome of another disk');
  }

  async #scan(): Promise<void> {
    await this.#groups.scan();
    this.#scanned = true;
    this.#conversation.notify();
  }

  /** A burst of answers is taken one by one while others wait: they get their turn in between. */
  async #receive(): Promise<void> {
    const { othersWait } = this.#options;
    while (this.#verdict === null) {
      this.#onFrame(await this.#conversation.receive());
      if (othersWait?.() === true) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #onFrame({ type, body }: Frame): void {
    switch (type) {
      case FRAME.equal:
        return this.#groups.onEqual(body);
      case FRAME.segmentHashes:
        return this.#groups.onSegmentHashes(body);
      case FRAME.leafHashes:
        return this.#groups.onLeafHashes(body);
      case FRAME.agreed:
        return this.#groups.onAgreed(body);
      case FRAME.pageHashes:
        return this.#leaves.onPageHashes(body);
      case FRAME.mended:
        return this.#leaves.onMended(body);
      case FRAME.unproven:
        return this.#leaves.onUnproven(body);
      case FRAME.zeroed:
        return this.#leaves.onZeroed(body);
      case FRAME.checkpointed:
        return this.#onCheckpointed(body);
      case FRAME.page:
        this.#page = body;
        return this.#conversation.notify();
      case FRAME.done:
        this.#verdict = decodeJson(body, differencesSchema, 'a verdict');
        return this.#conversation.notify();
      default:
        throw malformed(`message ${type} is not for a source`);
    }
  }

  #onSettled(): void {
    this.#report();
    const { compared, mended } = this.#options.checkpointBytes ?? DEFAULT_CHECKPOINT;
    const due =
      this.#settlement.comparedBytes - this.#kept.comparedBytes >= compared ||
      this.#leaves.sentBytes - this.#kept.sentBytes >= mended;
    if (due) this.#askCheckpoint();
  }

  /** One at a time: the answer says that everything that was mended before the question is durable. */
  #askCheckpoint(): void {
    const { cursor, cursorBytes, comparedBytes } = this.#settlement;
    if (this.#checkpoint !== null || cursor <= this.#kept.cursor) return;
    this.#kept = { cursor, comparedBytes, sentBytes: this.#leaves.sentBytes };
    this.#checkpoint = { id: this.#checkpoints++, cursor, cursorBytes };
    this.#conversation.post(FRAME.checkpoint, encodeId(this.#checkpoint.id));
  }

  #onCheckpointed(body: Buffer): void {
    const asked = this.#checkpoint;
    const { id } = decodeId(body);
    if (asked?.id !== id) throw malformed(`checkpoint ${id} that nobody asked for`);
    this.#keeping = this.#keeping.then(() => this.#options.onCursor?.(asked.cursor, asked.cursorBytes));
    this.#keeping.catch((error: unknown) => this.#conversation.fail(error as Error));
    this.#checkpoint = null;
    this.#conversation.notify();
  }

  /** Waits for everything, makes it durable, finds the exact first difference, and says goodbye. */
  async #finish(): Promise<CompareResult> {
    const { conversation, settlement } = { conversation: this.#conversation, settlement: this.#settlement };
    await conversation.until(() => this.#scanned && settlement.done && this.#checkpoint === null);
    this.#askCheckpoint();
    await conversation.until(() => this.#checkpoint === null);
    await this.#keeping;
    const firstPage = await this.#exactFirst();
    const found = { differingPages: this.#leaves.differingPages, firstDifference: firstPage };
    await conversation.send(
      FRAME.done,
      encodeJson({ ...this.#result(found), wireBytes: conversation.channel.wireBytes }),
    );
    await conversation.until(() => this.#verdict !== null);
    const { firstDifference } = this.#verdict!;
    const first = [firstPage, firstDifference].filter((offset) => offset !== null);
    this.#report('finishing');
    return this.#result({ ...found, firstDifference: first.length === 0 ? null : Math.min(...first) });
  }

  /** Compare-only: hashes name the page; its bytes, fetched once, name the byte. */
  async #exactFirst(): Promise<number | null> {
    const offset = this.#leaves.firstPage;
    if (offset === null) return null;
    const { disk } = this.#options;
    await this.#conversation.send(FRAME.askPage, encodeId(offset));
    await this.#conversation.until(() => this.#page !== null);
    const ours = Buffer.alloc(Math.min(PAGE_BYTES, disk.virtualSize - offset));
    if (this.#page!.length !== ours.length)
      throw malformed(`a page of ${this.#page!.length} bytes, expected ${ours.length}`);
    await (this.#options.read?.(ours, offset) ?? disk.read(ours, offset));
    const byte = ours.findIndex((value, at) => value !== this.#page![at]);
    return offset + Math.max(0, byte); // Equal by now when a guest has just written it: then the page is the answer.
  }

  #result({
    differingPages,
    firstDifference,
  }: {
    differingPages: number;
    firstDifference: number | null;
  }): CompareResult {
    return {
      comparedBytes: this.#settlement.comparedBytes,
      differingBytes: differingPages * PAGE_BYTES,
      sentBytes: this.#leaves.sentBytes,
      wireBytes: this.#conversation.channel.wireBytes,
      equal: differingPages === 0,
      firstDifference,
    };
  }

  #report(phase?: 'finishing'): void {
    this.#options.onProgress?.({
      phase: phase ?? (this.#scanned ? 'mending' : 'comparing'),
      totalBytes: this.#selection.totalBytes,
      scannedBytes: this.#scannedBytes,
      comparedBytes: this.#settlement.comparedBytes,
      differingBytes: this.#leaves.differingPages * PAGE_BYTES,
      sentBytes: this.#leaves.sentBytes,
      wireBytes: this.#conversation.channel.wireBytes,
    });
  }
}
