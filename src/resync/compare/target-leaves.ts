/**
 * The target's half of a differing leaf: says which pages differ, writes what the source sends, reads it back and
 * proves the leaf. Nothing is written but leaves that were opened or that the groups have found to differ, and only
 * while `admit` allows it.
 */
import { isZero } from '../../model/zero-bytes.ts';
import { promptWrites } from '../../disk/prompt-writes.ts';
import type { VirtualDisk } from '../../disk/virtual-disk.ts';
import type { Clock } from '../../model/ports.ts';
import { malformed } from './byte-cursor.ts';
import type { ComparePart } from './compare-part.ts';
import type { Frame } from './frame-channel.ts';
import { sameBytes } from './digest-tree.ts';
import {
  FRAME,
  type Mend,
  type MendLeaf,
  decodeId,
  decodeMend,
  decodeOpen,
  decodeZeroRuns,
  encodeHashList,
  encodeId,
  pageRuns,
} from './frames.ts';
import { inParallel } from './in-parallel.ts';
import type { CompareMode } from './options.ts';
import type { ByteRange } from './selection.ts';
import { TAG_BYTES } from './leaf-tags.ts';
import { MEND_LEAVES_MAX } from './mend-sender.ts';
import { HASHED_ROUNDS } from './page-hashes.ts';
import {
  LEAF_BATCH,
  MEND_BYTES,
  PAGE_BYTES,
  leafWindow,
  pagesPerLeaf,
} from './tree-shape.ts';

/** Questions for pages that are being answered. */
const ANSWERING_MAX = 3;
/** Received mends that wait for the disk: more stay in the stream, so that memory is bounded. */
const MENDS_WAITING = 4;

export interface TargetLeafContext extends ComparePart {
  target: VirtualDisk;
  mode: CompareMode;
  admit: () => void;
  clock: Pick<Clock, 'monotonic'> | undefined;
  /** Leaves proven since the last call. */
  onProven(positions: readonly number[]): void;
}

export class TargetLeaves {
  readonly #context: TargetLeafContext;
  readonly #openQueue: Buffer[] = [];
  readonly #writeQueue: Frame[] = [];
  /** Located by a group and not yet proven. */
  readonly #differing = new Set<number>();
  /** The round of each leaf whose pages were asked for, until its proof. */
  readonly #open = new Map<number, number>();
  #unpacked: Buffer | null = null;
  /** Of a leaf each, used again. */
  readonly #scratch: Buffer[] = [];
  readonly #writeNow: (from: Uint8Array, offset: number) => boolean;
  #checkpointing: Promise<void> = Promise.resolve();
  #finished = false;
  differingPages = 0;
  firstDifference: number | null = null;
  sentBytes = 0;

  constructor(context: TargetLeafContext) {
    this.#context = context;
    this.#writeNow = context.clock === undefined ? () => false : promptWrites(context.target, context.clock);
  }

  add(positions: readonly number[]): void {
    for (const position of positions) this.#differing.add(position);
  }

  finish(): void {
    this.#finished = true;
    this.#context.conversation.notify();
  }

  /** True once no further write fits: the receiving task waits until the disk has caught up. */
  get full(): boolean {
    return this.#writeQueue.length >= MENDS_WAITING;
  }

  onOpen(body: Buffer): void {
    // One leaf each at least: more questions than the window has leaves are none of a source that keeps to it.
    if (this.#openQueue.length >= leafWindow(this.#context.shape)) throw malformed('more questions for pages than the window allows');
    this.#openQueue.push(body);
    this.#context.conversation.notify();
  }

  /** Mends, zeroes, checkpoints and page questions: in their order, since a checkpoint is about what came before it. */
  onWrite(frame: Frame): void {
    this.#writeQueue.push(frame);
    this.#context.conversation.notify();
  }

  /** A few questions at a time, so that the hashing thread always has the next one. */
  async openLoop(): Promise<void> {
    const { conversation } = this.#context;
    let answering = 0;
    for (;;) {
      await conversation.until(() => this.#finished || (this.#openQueue.length > 0 && answering < ANSWERING_MAX));
      if (this.#finished) return;
      answering++;
      this.#answerPages(this.#openQueue.shift()!).then(() => {
        answering--;
        conversation.notify();
      }, (error: unknown) => conversation.fail(error as Error));
    }
  }

  async #answerPages(body: Buffer): Promise<void> {
    const { selection, shape, hasher, hashBytes, conversation, mode } = this.#context;
    const { id, round, positions } = decodeOpen(body, { positions: selection.count, leaves: LEAF_BATCH });
    if (round > HASHED_ROUNDS) throw malformed(`page hashes of round ${round}`);
    for (const position of positions) {
      if (!this.#differing.has(position)) throw malformed(`leaf ${position} is opened and was not found to differ`);
    }
    const hashes = await hasher.pages(positions.map((position) => selection.leafAt(position)), { round, bytes: hashBytes });
    const perLeaf = pagesPerLeaf(shape) * hashBytes;
    const entries = positions.map((_, index) => ({ index, hashes: hashes.subarray(index * perLeaf, (index + 1) * perLeaf) }));
    for (const position of positions) {
      if (mode === 'mend') this.#open.set(position, round);
      else this.#prove(position);
    }
    if (this.#open.size > leafWindow(shape) + LEAF_BATCH) {
      throw malformed(`${this.#open.size} leaves open, the window is ${leafWindow(shape)}`);
    }
    await conversation.send(FRAME.pageHashes, encodeHashList({ id, round, entries }));
  }

  async writeLoop(): Promise<void> {
    const { conversation } = this.#context;
    try {
      for (;;) {
        await conversation.until(() => this.#finished || this.#writeQueue.length > 0);
        const next = this.#writeQueue.shift();
        if (next === undefined) return;
        conversation.notify();
        await this.#answerWrite(next);
        next.release?.();
      }
    } finally {
      await this.#checkpointing;
    }
  }

  async #answerWrite({ type, body }: Frame): Promise<void> {
    if (type === FRAME.mend) await this.#mend(body);
    else if (type === FRAME.zero) await this.#zero(body);
    else if (type === FRAME.askPage) await this.#page(body);
    else {
      const { conversation } = this.#context;
      // What comes after it need not wait; one after another, as they came.
      this.#checkpointing = this.#checkpointing.then(() => this.#checkpoint(body)).catch((error: unknown) => conversation.fail(error as Error));
    }
  }

  async #mend(body: Buffer): Promise<void> {
    const { selection, shape, conversation, mode } = this.#context;
    if (mode !== 'mend') throw malformed('page data in a compare that writes nothing');
    const mend = decodeMend(body, { positions: selection.count, leaves: MEND_LEAVES_MAX, shape });
    for (const { position } of mend.leaves)
      if (!this.#open.has(position)) throw malformed(`page data for leaf ${position}, which is not open`);
    const payload = await this.#payload(mend);
    let used = 0;
    const runs = mend.leaves.flatMap((leaf) =>
      this.#runsOf(leaf).map((run) => ({
        byHashes: this.#open.get(leaf.position)! < HASHED_ROUNDS,
        run,
        bytes: payload.subarray(used, (used += run.length)),
      })),
    );
    let changed = 0;
    for (const { run, bytes, byHashes } of runs) {
      if (run.offset < (this.firstDifference ?? Infinity)) await this.#noteFirst(bytes, run.offset);
      changed += byHashes ? Math.ceil(run.length / PAGE_BYTES) : await this.#changedPages(bytes, run.offset);
    }
    await inParallel(runs, ({ run, bytes }) => this.#write(bytes, run));
    this.sentBytes += used;
    this.differingPages += changed;
    const proven = sameBytes(await this.#proof(mend), mend.proof);
    if (proven) for (const { position } of mend.leaves) this.#prove(position);
    for (const { position } of mend.leaves) this.#open.delete(position);
    await conversation.send(proven ? FRAME.mended : FRAME.unproven, encodeId(mend.id, changed));
  }

  /** Over the leaves as they are read back. */
  async #proof({ leaves }: Mend): Promise<Uint8Array> {
    const { target, compute, tag, selection, shape } = this.#context;
    const tags = new Uint8Array(leaves.length * TAG_BYTES);
    await inParallel([...leaves.entries()], async ([index, { position }]) => {
      const { offset, length } = selection.rangeAt(position);
      const memory = this.#scratch.pop() ?? Buffer.allocUnsafeSlow(shape.leafBytes);
      const bytes = memory.subarray(0, length);
      if (target.readNow?.(bytes, offset) !== true) await target.read(bytes, offset);
      tag(bytes, tags, index * TAG_BYTES);
      this.#scratch.push(memory);
    });
    return compute.digest(tags);
  }

  #runsOf({ position, mask }: MendLeaf): ByteRange[] {
    const { offset, length } = this.#context.selection.rangeAt(position);
    return pageRuns(mask, this.#context.shape).map(([page, count]) => {
      const from = page * PAGE_BYTES;
      if (from >= length) throw malformed(`page ${page} of leaf ${position} lies past the end of the disk`);
      return { offset: offset + from, length: Math.min(count * PAGE_BYTES, length - from) };
    });
  }

  /** The page data, whose length must be exactly that of the pages that are named. */
  async #payload(mend: Mend): Promise<Uint8Array> {
    const expected = mend.leaves.flatMap((leaf) => this.#runsOf(leaf)).reduce((sum, run) => sum + run.length, 0);
    if (mend.payloadBytes !== expected)
      throw malformed(`${mend.payloadBytes} bytes of page data for pages of ${expected} bytes`);
    if (!mend.compressed) return mend.payload;
    // One mend at a time.
    this.#unpacked ??= Buffer.allocUnsafeSlow(MEND_BYTES);
    const payload = await this.#context.compute.decompress(mend.payload, expected, this.#unpacked).catch((error: unknown) => {
      throw malformed(`page data does not decompress: ${error instanceof Error ? error.message : String(error)}`);
    });
    if (payload.length !== expected)
      throw malformed(`page data of ${payload.length} bytes, ${expected} were announced`);
    return payload;
  }

  /** Pages of zeroes become holes where the disk can. */
  async #write(bytes: Uint8Array, { offset }: ByteRange): Promise<void> {
    const { target } = this.#context;
    for (let at = 0; at < bytes.length;) {
      const zero = isZero(bytes.subarray(at, at + PAGE_BYTES));
      let end = at + PAGE_BYTES;
      while (end < bytes.length && isZero(bytes.subarray(end, end + PAGE_BYTES)) === zero) end += PAGE_BYTES;
      end = Math.min(end, bytes.length);
      this.#context.admit();
      const part = bytes.subarray(at, end);
      if (zero) await target.zero(offset + at, end - at);
      else if (!this.#writeNow(part, offset + at)) await target.write(part, offset + at);
      at = end;
    }
  }

  /** Finds the exact byte while the old one is still there; costs a read only where a lower one may come up. */
  async #noteFirst(bytes: Uint8Array, offset: number): Promise<void> {
    const old = Buffer.alloc(bytes.length);
    await this.#context.target.read(old, offset);
    const byte = old.findIndex((value, at) => value !== bytes[at]);
    if (byte >= 0) this.firstDifference = Math.min(this.firstDifference ?? Infinity, offset + byte);
  }

  /** How many of the pages are not on this disk yet; asked only of leaves that were sent whole. */
  async #changedPages(bytes: Uint8Array, offset: number): Promise<number> {
    const old = Buffer.alloc(bytes.length);
    await this.#context.target.read(old, offset);
    let changed = 0;
    for (let at = 0; at < old.length; at += PAGE_BYTES) {
      if (!sameBytes(old.subarray(at, at + PAGE_BYTES), bytes.subarray(at, at + PAGE_BYTES))) changed++;
    }
    return changed;
  }

  async #zero(body: Buffer): Promise<void> {
    const { selection, conversation, mode, target } = this.#context;
    const { id, runs } = decodeZeroRuns(body, selection.count);
    let changed = 0;
    for (const [first, count] of runs) {
      for (let position = first; position < first + count; position++) {
        if (!this.#differing.has(position)) throw malformed(`leaf ${position} is zeroed and was not found to differ`);
        changed += await this.#countData(selection.rangeAt(position));
      }
      for (const piece of selection.runsOf(first, count)) {
        const { offset } = selection.rangeAt(piece.position);
        const length = selection.bytesOf(piece.position, piece.count);
        if (mode === 'mend') {
          this.#context.admit();
          await target.zero(offset, length);
        }
      }
      for (let position = first; position < first + count; position++) {
        if (mode === 'mend') await this.#provenZero(selection.rangeAt(position));
        this.#prove(position);
      }
    }
    this.differingPages += changed;
    await conversation.send(FRAME.zeroed, encodeId(id, changed));
  }

  /** How many pages of the range are not zero on this disk. */
  async #countData(range: ByteRange): Promise<number> {
    const bytes = Buffer.allocUnsafe(range.length);
    await this.#context.target.read(bytes, range.offset);
    let pages = 0;
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) if (!isZero(bytes.subarray(at, at + PAGE_BYTES))) pages++;
    const byte =
      pages === 0 || range.offset >= (this.firstDifference ?? Infinity) ? -1 : bytes.findIndex((value) => value !== 0);
    if (byte >= 0) this.firstDifference = range.offset + byte;
    return pages;
  }

  async #provenZero({ offset, length }: ByteRange): Promise<void> {
    const { target } = this.#context;
    for await (const { kind } of target.extents(offset, length)) {
      if (kind === 'zero') continue;
      const bytes = Buffer.allocUnsafe(length);
      await target.read(bytes, offset);
      if (isZero(bytes)) return;
      throw Object.assign(
        new Error(`${target.location}: bytes ${offset} to ${offset + length} were zeroed and do not read as zeroes`),
        { code: 'EIO' },
      );
    }
  }

  /**
   * What was read and found equal may still sit in a cache from before a crash, so every checkpoint flushes. Everything before it has been
   * written.
   */
  async #checkpoint(body: Buffer): Promise<void> {
    const { conversation, target, mode } = this.#context;
    const { id } = decodeId(body);
    if (mode === 'mend') await target.flush();
    await conversation.send(FRAME.checkpointed, encodeId(id));
  }

  async #page(body: Buffer): Promise<void> {
    const { conversation, target, mode } = this.#context;
    const { id: offset } = decodeId(body);
    const inside = mode === 'compare-only' && offset % PAGE_BYTES === 0 && offset < target.virtualSize;
    if (!inside) throw malformed(`a question for the page at ${offset}`);
    const bytes = Buffer.alloc(Math.min(PAGE_BYTES, target.virtualSize - offset));
    await target.read(bytes, offset);
    await conversation.send(FRAME.page, [bytes]);
  }

  #prove(position: number): void {
    this.#differing.delete(position);
    this.#context.onProven([position]);
  }
}
