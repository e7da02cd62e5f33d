/**
 * The source's half of a differing leaf: asks for the target's page hashes, and then sends what differs (mend-sender.ts), or counts it. A leaf
 * is settled when the target has proven it by its tag.
 */
import { UnderstudyError } from '../../model/errors.ts';
import { malformed } from './byte-cursor.ts';
import { FRAME, decodeHashList, decodeId, encodeOpen, encodeZeroRuns, pageRuns, pagesIn } from './frames.ts';
import { type AnsweredLeaf, type MendContext, MendSender } from './mend-sender.ts';
import { HASHED_ROUNDS, differingMask } from './page-hashes.ts';
import type { Settlement } from './settlement.ts';
import { LEAF_BATCH, PAGE_BYTES, leafWindow, pagesPerLeaf } from './tree-shape.ts';

/** Leaves of one zero message. */
const ZERO_LEAVES_MAX = 4096;

interface Batch {
  round: number;
  positions: number[];
  /** This side's page hashes, in a compare that sends no pages. */
  ours: Promise<Uint8Array> | null;
}

export interface LeafContext extends MendContext {
  settlement: Settlement;
  mode: 'mend' | 'compare-only';
  onSettled(): void;
}

export class SourceLeaves {
  readonly #context: LeafContext;
  readonly #queue: { position: number; round: number }[] = [];
  readonly #zeroQueue: number[] = [];
  /** The round of each leaf that was opened and is not proven yet. */
  readonly #open = new Map<number, number>();
  readonly #batches = new Map<number, Batch>();
  readonly #zeroBatches = new Map<number, number[]>();
  readonly #mends: MendSender;
  #ids = 0;
  #finished = false;
  differingPages = 0;
  /** Offset of the lowest page that was found to differ, by hashes alone. */
  firstPage: number | null = null;

  constructor(context: LeafContext) {
    this.#context = context;
    this.#mends = new MendSender(context);
  }

  /** Of page data, before compression. */
  get sentBytes(): number {
    return this.#mends.sentBytes;
  }

  add(leaves: readonly { position: number; zero: boolean }[]): void {
    for (const { position, zero } of leaves) {
      if (zero) this.#zeroQueue.push(position);
      else this.#queue.push({ position, round: 0 });
    }
  }

  /** Ends both loops once everything is settled. */
  finish(): void {
    this.#finished = true;
    this.#mends.finish();
    this.#context.conversation.notify();
  }

  /** Asks about queued leaves, at most a window of them at a time. */
  async openLoop(): Promise<void> {
    const { conversation } = this.#context;
    for (;;) {
      await conversation.until(() => this.#finished || this.#zeroQueue.length > 0 || this.#mayOpen());
      if (this.#finished) return;
      if (this.#zeroQueue.length > 0) await this.#sendZeroRuns();
      else await this.#sendOpen();
    }
  }

  #mayOpen(): boolean {
    return this.#queue.length > 0 && this.#open.size + LEAF_BATCH <= leafWindow(this.#context.shape);
  }

  async #sendOpen(): Promise<void> {
    const round = this.#queue[0]!.round;
    const other = this.#queue.findIndex((leaf) => leaf.round !== round);
    const taken = this.#queue.splice(0, Math.min(LEAF_BATCH, other < 0 ? LEAF_BATCH : other));
    const positions = taken.map(({ position }) => position).sort((a, b) => a - b);
    for (const position of positions) this.#open.set(position, round);
    const id = this.#ids++;
    const { hasher, selection, mode, hashBytes, conversation } = this.#context;
    const ours = mode === 'mend' ? null
      : hasher.pages(positions.map((position) => selection.leafAt(position)), { round, bytes: hashBytes });
    ours?.catch((error: unknown) => conversation.fail(error as Error));
    this.#batches.set(id, { round, positions, ours });
    await conversation.send(FRAME.open, encodeOpen({ id, round, positions }));
  }

  async #sendZeroRuns(): Promise<void> {
    const positions = this.#zeroQueue.splice(0, ZERO_LEAVES_MAX);
    const runs: [number, number][] = [];
    for (const position of positions) {
      const last = runs.at(-1);
      if (last !== undefined && last[0] + last[1] === position) last[1]++;
      else runs.push([position, 1]);
    }
    const id = this.#ids++;
    this.#zeroBatches.set(id, positions);
    await this.#context.conversation.send(FRAME.zero, encodeZeroRuns({ id, runs }));
  }

  /** The target's hashes of all pages of a batch. */
  onPageHashes(body: Buffer): void {
    const { shape, hashBytes, conversation } = this.#context;
    const limits = { blockBytes: pagesPerLeaf(shape) * hashBytes, indexes: LEAF_BATCH, entries: LEAF_BATCH };
    const { id, round, entries } = decodeHashList(body, limits);
    const batch = this.#batches.get(id);
    if (batch === undefined) throw malformed(`page hashes of batch ${id} that nobody asked for`);
    const { positions } = batch;
    if (round !== batch.round || entries.length !== positions.length || entries.at(-1)!.index !== positions.length - 1) {
      throw malformed(`page hashes of ${entries.length} leaves in round ${round}, asked were ${positions.length} in round ${batch.round}`);
    }
    this.#batches.delete(id);
    const answered = positions.map((position, at) => ({ position, round, hashes: entries[at]!.hashes }));
    if (batch.ours === null) this.#mends.add(answered);
    else batch.ours.then((ours) => this.#count(answered, ours)).catch((error: unknown) => conversation.fail(error as Error));
    conversation.notify();
  }

  /** Compare-only: hashes alone say which pages differ. */
  #count(answered: readonly AnsweredLeaf[], ours: Uint8Array): void {
    const { selection, shape, settlement, hashBytes, onSettled, conversation } = this.#context;
    const perLeaf = pagesPerLeaf(shape) * hashBytes;
    for (const [at, { position, hashes }] of answered.entries()) {
      const mask = differingMask(ours.subarray(at * perLeaf, (at + 1) * perLeaf), hashes, hashBytes);
      const first = pageRuns(mask, shape)[0];
      if (first !== undefined) {
        const offset = selection.rangeAt(position).offset + first[0] * PAGE_BYTES;
        this.firstPage = Math.min(this.firstPage ?? offset, offset);
        this.differingPages += pagesIn(mask);
      }
      this.#open.delete(position);
      settlement.proven(position);
    }
    onSettled();
    conversation.notify();
  }

  /** Sends what differs until everything is settled. */
  mendLoop(): Promise<void> {
    return this.#mends.loop(() => this.#batches.size > 0 || this.#mayOpen());
  }

  onMended(body: Buffer): void {
    const { settlement, onSettled, conversation } = this.#context;
    const { id, count } = decodeId(body);
    const positions = this.#mends.take(id);
    if (count > positions.length * pagesPerLeaf(this.#context.shape))
      throw malformed(`${count} pages in ${positions.length} leaves`);
    this.differingPages += count;
    for (const position of positions) {
      this.#open.delete(position);
      settlement.proven(position);
    }
    onSettled();
    conversation.notify();
  }

  /** Some page was judged equal by short hashes and is not: the same leaves again, by other bytes of their tags. */
  onUnproven(body: Buffer): void {
    const { id, count } = decodeId(body);
    this.differingPages += count;
    for (const position of this.#mends.take(id)) {
      const round = this.#open.get(position)! + 1;
      if (round > HASHED_ROUNDS) throw this.#notKept(position);
      this.#open.delete(position);
      this.#queue.push({ position, round });
    }
    this.#context.conversation.notify();
  }

  onZeroed(body: Buffer): void {
    const { settlement, onSettled, conversation } = this.#context;
    const { id, count } = decodeId(body);
    const positions = this.#zeroBatches.get(id);
    if (positions === undefined) throw malformed(`an answer about zeroes ${id} that nobody sent`);
    this.#zeroBatches.delete(id);
    this.differingPages += count;
    for (const position of positions) settlement.proven(position);
    onSettled();
    conversation.notify();
  }

  #notKept(position: number): UnderstudyError {
    const { offset, length } = this.#context.selection.rangeAt(position);
    return new UnderstudyError(
      'io',
      'COMPARE_NOT_PROVEN',
      `bytes ${offset} to ${offset + length} were sent whole, and what the other side reads back is something else`,
      'Check that nothing else writes to the target disk, and check its volume for errors; then start again.',
    );
  }
}
