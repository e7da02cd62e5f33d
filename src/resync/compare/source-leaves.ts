/**
 * The source's half of a differing leaf: short hashes of its spans, the target's page hashes of the spans that differ,
 * then the differing pages with the digest of what was sent. A guest may write meanwhile: pages are read again when
 * they are sent and their digests taken from those bytes, so the proof is about the bytes that travelled (rule R18).
 */
import { UnderstudyError } from '../../model/errors.ts';
import type { Compute } from '../../model/ports.ts';
import { malformed } from './byte-cursor.ts';
import type { Conversation } from './conversation.ts';
import { type DigestList, differingIndexes, foldSpans, roundsOf, shortHashes } from './digest-tree.ts';
import {
  FRAME,
  type MendLeaf,
  decodeHashList,
  decodeId,
  encodeHashList,
  encodeMend,
  encodeZeroRuns,
  pageRuns,
  pagesIn,
} from './frames.ts';
import { inParallel } from './in-parallel.ts';
import type { LeafHasher, Pace, ReadSpan } from './leaf-hasher.ts';
import type { Selection } from './selection.ts';
import type { Settlement } from './settlement.ts';
import {
  DIGEST_BYTES,
  LEAF_BATCH,
  LEAF_WINDOW,
  MEND_BYTES,
  MEND_WINDOW,
  PAGE_BYTES,
  SPAN_PAGES,
  type TreeShape,
  pagesPerLeaf,
  spansPerLeaf,
} from './tree-shape.ts';

/**
 * After this many unproven rounds of short hashes a leaf is sent whole; if that is not proven either, the target's
 * disk fails.
 */
const HASHED_ROUNDS = 3;
/** Leaves of one mend message: they take a few bytes each even when no page differs any more. */
export const MEND_LEAVES_MAX = 512;
/** Leaves of one zero message. */
const ZERO_LEAVES_MAX = 4096;

/** Batches of leaves that are being hashed: one on the thread, the others ready for it. */
const OPENING_MAX = 3;

/** Mend messages that are being compressed or wait to be sent; each holds a megabyte. */
const COMPRESSING_MAX = 3;

interface Gathered {
  id: number;
  leaves: MendLeaf[];
  proof: Uint8Array;
  payload: Uint8Array;
}

interface OpenLeaf {
  round: number;
  /** Of each page as it was when it was last read; what was sent replaces what was only compared. */
  digests: DigestList;
}

export interface LeafContext {
  conversation: Conversation;
  selection: Selection;
  shape: TreeShape;
  hasher: LeafHasher;
  compute: Compute;
  settlement: Settlement;
  hashBytes: number;
  mode: 'mend' | 'compare-only';
  read: ReadSpan;
  paceWire: Pace;
  onSettled(): void;
}

export class SourceLeaves {
  readonly #context: LeafContext;
  readonly #queue: { position: number; round: number }[] = [];
  readonly #zeroQueue: number[] = [];
  readonly #open = new Map<number, OpenLeaf>();
  readonly #batches = new Map<number, number[]>();
  readonly #zeroBatches = new Map<number, number[]>();
  readonly #mendQueue: MendLeaf[] = [];
  readonly #mends = new Map<number, number[]>();
  #ids = 0;
  /** Batches whose pages are being hashed. */
  #opening = 0;
  #finished = false;
  differingPages = 0;
  sentBytes = 0;
  /** Offset of the lowest page that was found to differ, by hashes alone. */
  firstPage: number | null = null;

  constructor(context: LeafContext) {
    this.#context = context;
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
    this.#context.conversation.notify();
  }

  /** Reads queued leaves, at most a window at a time, and sends the hashes of their spans. */
  async openLoop(): Promise<void> {
    const { conversation } = this.#context;
    const mayOpen = () => this.#opening < OPENING_MAX && this.#leavesToOpen();
    for (;;) {
      await conversation.until(() => this.#finished || this.#zeroQueue.length > 0 || mayOpen());
      if (this.#finished) return;
      if (this.#zeroQueue.length > 0) await this.#sendZeroRuns();
      else this.#sendSpanHashes().catch((error: unknown) => conversation.fail(error as Error));
    }
  }

  #leavesToOpen(): boolean {
    return this.#queue.length > 0 && this.#open.size + this.#opening * LEAF_BATCH < LEAF_WINDOW;
  }

  async #sendSpanHashes(): Promise<void> {
    const { conversation, hasher, selection, shape, compute, hashBytes } = this.#context;
    const round = this.#queue[0]!.round;
    const other = this.#queue.findIndex((leaf) => leaf.round !== round);
    const taken = this.#queue.splice(0, Math.min(LEAF_BATCH, other < 0 ? LEAF_BATCH : other));
    const positions = taken.map(({ position }) => position).sort((a, b) => a - b);
    this.#opening++;
    const digests = await hasher.pages(positions.map((position) => selection.leafAt(position)));
    const perLeaf = pagesPerLeaf(shape) * DIGEST_BYTES;
    const entries = positions.map((position, at) => {
      const pages = digests.subarray(at * perLeaf, (at + 1) * perLeaf);
      this.#open.set(position, { round, digests: pages });
      return {
        index: position,
        hashes: shortHashes(foldSpans(pages, compute.digest), hashBytes, hashRound(round, hashBytes)),
      };
    });
    const id = this.#ids++;
    this.#batches.set(id, positions);
    this.#opening--;
    conversation.notify();
    await conversation.send(FRAME.spanHashes, encodeHashList({ id, round: hashRound(round, hashBytes), entries }));
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

  /** The target's hashes of the pages of those spans that differ on its side. */
  onPageHashes(body: Buffer): void {
    const { shape, hashBytes, mode, conversation } = this.#context;
    const spans = spansPerLeaf(shape);
    const limits = { blockBytes: SPAN_PAGES * hashBytes, indexes: LEAF_BATCH * spans, entries: LEAF_BATCH * spans };
    const list = decodeHashList(body, limits);
    const positions = this.#batches.get(list.id);
    if (positions === undefined) throw malformed(`page hashes of batch ${list.id} that nobody asked for`);
    this.#batches.delete(list.id);
    const masks = positions.map(() => new Uint8Array(spans));
    for (const { index, hashes } of list.entries) {
      const at = Math.floor(index / spans);
      const leaf = positions[at] === undefined ? undefined : this.#open.get(positions[at]);
      if (leaf === undefined) throw malformed(`page hashes of leaf ${at} of ${positions.length}`);
      const span = index % spans;
      const ours = leaf.digests.subarray(span * SPAN_PAGES * DIGEST_BYTES, (span + 1) * SPAN_PAGES * DIGEST_BYTES);
      const differing = differingIndexes(
        shortHashes(ours, hashBytes, hashRound(leaf.round, hashBytes)),
        hashes,
        hashBytes,
      );
      masks[at]![span] = differing.reduce((bits, page) => bits | (1 << page), 0);
    }
    for (const [at, position] of positions.entries()) {
      if (mode === 'mend') this.#mendQueue.push({ position, mask: this.#maskToSend(position, masks[at]!) });
      else this.#count(position, masks[at]!);
    }
    conversation.notify();
  }

  #maskToSend(position: number, found: Uint8Array): Uint8Array {
    if (this.#open.get(position)!.round < HASHED_ROUNDS) return found;
    const pages = Math.ceil(this.#context.selection.rangeAt(position).length / PAGE_BYTES);
    return found.map((_, span) => (1 << Math.max(0, Math.min(SPAN_PAGES, pages - span * SPAN_PAGES))) - 1);
  }

  #count(position: number, mask: Uint8Array): void {
    const { selection, shape, settlement, onSettled } = this.#context;
    const first = pageRuns(mask, shape)[0];
    if (first !== undefined) {
      const offset = selection.rangeAt(position).offset + first[0] * PAGE_BYTES;
      this.firstPage = Math.min(this.firstPage ?? offset, offset);
      this.differingPages += pagesIn(mask);
    }
    this.#open.delete(position);
    settlement.proven(position);
    onSettled();
  }

  /** Gathers differing pages into messages of up to a megabyte; a few are compressed at once, all are sent in order. */
  async mendLoop(): Promise<void> {
    const { conversation, compute } = this.#context;
    let sent: Promise<void> = Promise.resolve();
    let underWay = 0;
    for (;;) {
      const ready = () => this.#mends.size < MEND_WINDOW && underWay < COMPRESSING_MAX && this.#mendReady();
      await conversation.until(() => this.#finished || ready());
      if (this.#finished) return sent;
      const gathered = await this.#gather();
      const compressing = gathered.payload.length > 0 ? compute.compress(gathered.payload) : Promise.resolve(null);
      compressing.catch(() => {}); // Seen when its turn to be sent comes.
      underWay++;
      sent = sent.then(async () => {
        await this.#sendMend(gathered, await compressing);
        underWay--;
        conversation.notify();
      });
      sent.catch((error: unknown) => conversation.fail(error as Error));
    }
  }

  async #sendMend({ id, leaves, proof, payload }: Gathered, shrunk: Uint8Array | null): Promise<void> {
    const { conversation, paceWire } = this.#context;
    const compressed = shrunk !== null;
    const parts = encodeMend({
      id,
      leaves,
      proof,
      compressed,
      payload: shrunk ?? payload,
      payloadBytes: payload.length,
    });
    await paceWire(parts.reduce((sum, part) => sum + part.length, 0));
    await conversation.send(FRAME.mend, parts);
  }

  /** A full message, or nothing more can come before this one has gone. */
  #mendReady(): boolean {
    if (this.#mendQueue.length === 0) return false;
    if (this.#mendQueue.length >= MEND_LEAVES_MAX) return true;
    const waitsForAnswers = this.#batches.size > 0 || this.#opening > 0 || this.#leavesToOpen();
    if (!waitsForAnswers) return true;
    let pages = 0;
    for (const { mask } of this.#mendQueue) if ((pages += pagesIn(mask)) * PAGE_BYTES >= MEND_BYTES) return true;
    return false;
  }

  async #gather(): Promise<Gathered> {
    const { selection, shape, compute, read } = this.#context;
    let pages = 0;
    const over = this.#mendQueue.findIndex(({ mask }) => (pages += pagesIn(mask)) * PAGE_BYTES > MEND_BYTES);
    const leaves = this.#mendQueue.splice(0, Math.min(MEND_LEAVES_MAX, over < 0 ? MEND_LEAVES_MAX : over));
    leaves.sort((a, b) => a.position - b.position);
    const id = this.#ids++;
    this.#mends.set(
      id,
      leaves.map(({ position }) => position),
    );
    const payload = Buffer.allocUnsafe(leaves.reduce((sum, { mask }) => sum + pagesIn(mask), 0) * PAGE_BYTES);
    let used = 0;
    const runs = leaves.flatMap(({ position, mask }) => {
      const { offset, length } = selection.rangeAt(position);
      return pageRuns(mask, shape).map(([page, count]) => {
        const from = page * PAGE_BYTES;
        const bytes = payload.subarray(used, (used += Math.min(count * PAGE_BYTES, length - from)));
        return { position, page, offset: offset + from, bytes };
      });
    });
    await inParallel(runs, async ({ position, page, offset, bytes }) => {
      await read(bytes, offset);
      const digests = this.#open.get(position)!.digests;
      for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
        digests.set(compute.digest(bytes.subarray(at, at + PAGE_BYTES)), (page + at / PAGE_BYTES) * DIGEST_BYTES);
      }
    });
    const proof = proofOf(
      leaves.map(({ position }) => this.#open.get(position)!.digests),
      compute,
    );
    this.sentBytes += used;
    return { id, leaves, proof, payload: payload.subarray(0, used) };
  }

  onMended(body: Buffer): void {
    const { settlement, onSettled, conversation } = this.#context;
    const { id, count } = decodeId(body);
    const positions = this.#takeMend(id);
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

  /** Some page was judged equal by short hashes and is not: the same leaves again, by other bytes of their digests. */
  onUnproven(body: Buffer): void {
    const { id, count } = decodeId(body);
    this.differingPages += count;
    for (const position of this.#takeMend(id)) {
      const round = this.#open.get(position)!.round + 1;
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

  #takeMend(id: number): number[] {
    const positions = this.#mends.get(id);
    if (positions === undefined) throw malformed(`an answer about mend ${id} that nobody sent`);
    this.#mends.delete(id);
    return positions;
  }

  #notKept(position: number): UnderstudyError {
    const { offset, length } = this.#context.selection.rangeAt(position);
    return new UnderstudyError(
      'io',
      'COMPARE_NOT_PROVEN',
      `bytes ${offset} to ${offset + length} were sent whole, and what the other side reads back has not their digest`,
      'Check that nothing else writes to the target disk, and check its volume for errors; then start again.',
    );
  }
}

/**
 * The bytes of the digests that a round uses: rounds after the hashed ones send everything, whatever the hashes say.
 */
const hashRound = (round: number, hashBytes: number): number =>
  Math.min(round, HASHED_ROUNDS - 1, roundsOf(hashBytes) - 1);

/** The proof of a mend message: over the digests of all pages of its leaves. */
export function proofOf(leaves: readonly DigestList[], compute: Pick<Compute, 'digest'>): Uint8Array {
  return compute.digest(Buffer.concat(leaves.map((digests) => compute.digest(digests))));
}
