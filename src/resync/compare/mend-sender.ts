/**
 * From the target's page hashes to mend messages: reads each leaf once, finds its differing pages, and gathers them into messages of up to
 * a megabyte. Bytes, hashes and tag are of one reading, so a guest may write meanwhile: the proof is about the bytes that travelled (rule
 * R18).
 *
 * A few pieces are compared and a few messages compressed at once; all leave in the order of their leaves.
 */
import { malformed } from './byte-cursor.ts';
import type { ComparePart } from './compare-part.ts';
import type { TagList } from './digest-tree.ts';
import { FRAME, type MendLeaf, encodeMend } from './frames.ts';
import type { Pace } from './leaf-hasher.ts';
import { MendMemory } from './mend-memory.ts';
import type { LeafDifferences } from './page-hashes.ts';
import { MEND_BYTES, MEND_WINDOW, spansPerLeaf } from './tree-shape.ts';

/** Leaves of one mend message: they take a few bytes each even when no page differs any more. */
export const MEND_LEAVES_MAX = 512;
/** Messages that are being compressed or wait to be sent; each holds a megabyte. */
const COMPRESSING_MAX = 3;
/** While others wait for this thread: a megabyte keeps it for 2 to 5 ms. A piece may be longer, as few of its pages differ most of the time. */
const SHORT = { mendBytes: 128 * 1024, pieceBytes: 512 * 1024 };
const LONG = { mendBytes: MEND_BYTES, pieceBytes: MEND_BYTES };
/** Pieces that are being compared: one on the thread, one ready for it. */
const COMPARING_MAX = 2;

/** A leaf whose page hashes the target has told. */
export interface AnsweredLeaf {
  position: number;
  round: number;
  hashes: Uint8Array;
}

interface Gathered {
  leaves: MendLeaf[];
  tags: TagList[];
  payload: Uint8Array[];
  bytes: number;
}

export interface MendContext extends ComparePart {
  paceWire: Pace;
  othersWait: () => boolean;
}

export class MendSender {
  readonly #context: MendContext;
  readonly #answered: AnsweredLeaf[] = [];
  readonly #mends = new Map<number, number[]>();
  readonly #memory = new MendMemory();
  #gathered: Gathered = { leaves: [], tags: [], payload: [], bytes: 0 };
  #comparing = 0;
  #compared: Promise<void> = Promise.resolve();
  #compressing = 0;
  #sent: Promise<void> = Promise.resolve();
  #ids = 0;
  #finished = false;
  /** Of page data, before compression. */
  sentBytes = 0;

  constructor(context: MendContext) {
    this.#context = context;
  }

  add(leaves: readonly AnsweredLeaf[]): void {
    this.#answered.push(...leaves);
  }

  finish(): void {
    this.#finished = true;
  }

  /** The leaves of a message that has been answered. */
  take(id: number): number[] {
    const positions = this.#mends.get(id);
    if (positions === undefined) throw malformed(`an answer about mend ${id} that nobody sent`);
    this.#mends.delete(id);
    return positions;
  }

  /** `moreComes`: answers are awaited, so that a message which is not full may wait for them. */
  async loop(moreComes: () => boolean): Promise<void> {
    const mayCompare = () => this.#answered.length > 0 && this.#comparing < COMPARING_MAX && this.#mayGather();
    const mustSend = () => this.#gathered.leaves.length > 0 && this.#answered.length === 0 && this.#comparing === 0 && !moreComes();
    for (;;) {
      await this.#context.conversation.until(() => this.#finished || mayCompare() || mustSend());
      if (this.#finished) return this.#sent;
      if (mayCompare()) this.#compare();
      else this.#send();
    }
  }

  #mayGather(): boolean {
    return this.#compressing < COMPRESSING_MAX && this.#mends.size < MEND_WINDOW;
  }

  get #lengths(): typeof LONG {
    return this.#context.othersWait() ? SHORT : LONG;
  }

  #compare(): void {
    const { conversation, hasher, selection, hashBytes } = this.#context;
    const piece = this.#nextPiece();
    const hashing = { round: piece[0]!.round, bytes: hashBytes };
    // A copy of its own: to another thread goes the whole memory that an array lies in.
    const theirs = Uint8Array.from(Buffer.concat(piece.map(({ hashes }) => hashes)));
    this.#comparing++;
    const differing = hasher.differing(piece.map(({ position }) => selection.leafAt(position)), theirs, hashing, this.#memory.take());
    differing.catch(() => {}); // Seen when its turn comes.
    this.#compared = this.#compared.then(async () => {
      this.#gather(piece, await differing);
      this.#comparing--;
      conversation.notify();
    });
    this.#compared.catch((error: unknown) => conversation.fail(error as Error));
  }

  /** Ascending leaves of one round, whose pages together fit into one message. */
  #nextPiece(): AnsweredLeaf[] {
    const most = this.#lengths.pieceBytes / this.#context.shape.leafBytes;
    const [first] = this.#answered;
    let count = 1;
    while (count < most) {
      const next = this.#answered[count];
      if (next === undefined || next.round !== first!.round || next.position <= this.#answered[count - 1]!.position) break;
      count++;
    }
    return this.#answered.splice(0, count);
  }

  #gather(piece: readonly AnsweredLeaf[], { masks, tags, payload }: LeafDifferences): void {
    const { bytes, leaves } = this.#gathered;
    const ascends = leaves.length === 0 || leaves.at(-1)!.position < piece[0]!.position;
    if (!ascends || bytes + payload.length > this.#lengths.mendBytes || leaves.length + piece.length > MEND_LEAVES_MAX) this.#send();
    const spans = spansPerLeaf(this.#context.shape);
    for (const [at, { position }] of piece.entries()) {
      this.#gathered.leaves.push({ position, mask: masks.subarray(at * spans, (at + 1) * spans) });
    }
    this.#gathered.tags.push(tags);
    this.#gathered.bytes += payload.length;
    if (payload.length > 0) this.#gathered.payload.push(payload);
    else this.#memory.give(payload.buffer);
  }

  /** Takes what is gathered; its message leaves after those before it. */
  #send(): void {
    const { conversation, compute } = this.#context;
    const { leaves, tags } = this.#gathered;
    const payload = this.#joined(this.#gathered);
    this.#gathered = { leaves: [], tags: [], payload: [], bytes: 0 };
    const id = this.#ids++;
    this.#mends.set(id, leaves.map(({ position }) => position));
    const proof = compute.digest(Buffer.concat(tags));
    const into = payload.length > 0 ? this.#memory.take() : undefined;
    const shrinking = into === undefined ? Promise.resolve(null) : compute.compress(payload, new Uint8Array(into));
    shrinking.catch(() => {}); // Seen when its turn to be sent comes.
    this.#compressing++;
    this.#sent = this.#sent.then(async () => {
      const shrunk = await shrinking;
      const parts = encodeMend({ id, leaves, proof, compressed: shrunk !== null, payload: shrunk ?? payload, payloadBytes: payload.length });
      await this.#context.paceWire(parts.reduce((sum, part) => sum + part.length, 0));
      this.sentBytes += payload.length;
      const leaving = conversation.send(FRAME.mend, parts);
      this.#memory.give(payload.buffer);
      this.#memory.give(into);
      await leaving;
      this.#compressing--;
      conversation.notify();
    });
    this.#sent.catch((error: unknown) => conversation.fail(error as Error));
  }

  #joined({ payload, bytes }: Gathered): Uint8Array {
    if (payload.length <= 1) return payload[0] ?? new Uint8Array(0);
    const joined = new Uint8Array(this.#memory.take(), 0, bytes);
    let at = 0;
    for (const part of payload) {
      joined.set(part, at);
      at += part.length;
      this.#memory.give(part.buffer);
    }
    return joined;
  }
}
