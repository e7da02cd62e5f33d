/**
 * The target's half of locating: scans its segments, answers each group root, and proves that what was not listed is
 * equal.
 */
import { malformed } from './byte-cursor.ts';
import type { ComparePart } from './compare-part.ts';
import {
  type SegmentTree,
  differingIndexes,
  groupRoot,
  restProof,
  roundsOf,
  sameBytes,
  shortHashes,
} from './digest-tree.ts';
import { FRAME, decodeDiffering, decodeGroup, decodeHashList, encodeHashList, encodeId } from './frames.ts';
import { TAG_BYTES } from './leaf-tags.ts';
import { scanSegment, segmentCount, segmentPositions } from './segment-scan.ts';
import {
  DIGEST_BYTES,
  GROUP_SEGMENTS_MAX,
  NODE_LEAVES,
  SEGMENT_WINDOW,
  segmentLeaves,
} from './tree-shape.ts';

interface Group {
  id: number;
  firstSegment: number;
  trees: SegmentTree[];
  round: number;
  awaits: 'node-hashes' | 'differing';
}

export interface TargetGroupContext extends ComparePart {
  onScanned(bytes: number): void;
  /** All positions of these segments but the listed ones are proven equal. */
  onLocated(segments: readonly number[], differing: readonly number[]): void;
}

export class TargetGroups {
  readonly #context: TargetGroupContext;
  readonly #scanned = new Map<number, SegmentTree>();
  readonly #arrived: { id: number; firstSegment: number; segments: number; root: Uint8Array }[] = [];
  readonly #groups = new Map<number, Group>();
  readonly #segments: number;
  #received = 0;
  #receivedSegments = 0;
  #settledSegments = 0;
  #finished = false;

  constructor(context: TargetGroupContext) {
    this.#context = context;
    this.#segments = segmentCount(context.selection, context.shape);
  }

  finish(): void {
    this.#finished = true;
    this.#context.conversation.notify();
  }

  /** Scans ahead of the source's questions, at most a window beyond what is settled. */
  async scan(): Promise<void> {
    const { conversation, selection, shape, hasher, compute } = this.#context;
    for (let segment = 0; segment < this.#segments; segment++) {
      await conversation.until(() => segment < this.#settledSegments + SEGMENT_WINDOW);
      this.#scanned.set(segment, await scanSegment(segment, { selection, shape, hasher, digest: compute.digest }));
      const { first, count } = segmentPositions(segment, selection, shape);
      this.#context.onScanned(selection.bytesOf(first, count));
      conversation.notify();
    }
  }

  onGroup(body: Buffer): void {
    const left = Math.min(GROUP_SEGMENTS_MAX, this.#segments - this.#receivedSegments);
    const { segments, root } = decodeGroup(body, left);
    if (this.#receivedSegments + segments > this.#settledSegments + 2 * SEGMENT_WINDOW)
      throw malformed('groups beyond the window');
    this.#arrived.push({ id: this.#received++, firstSegment: this.#receivedSegments, segments, root });
    this.#receivedSegments += segments;
    this.#context.conversation.notify();
  }

  /** Answers roots in the order they came, as soon as this side's scan has got there. */
  async answerLoop(): Promise<void> {
    const { conversation, compute } = this.#context;
    const ready = () => {
      const next = this.#arrived[0];
      return this.#finished || (next !== undefined && this.#scanned.has(next.firstSegment + next.segments - 1));
    };
    for (;;) {
      await conversation.until(ready);
      if (this.#finished) return;
      const { id, firstSegment, segments, root } = this.#arrived.shift()!;
      const trees = Array.from({ length: segments }, (_, at) => this.#scanned.get(firstSegment + at)!);
      for (let at = 0; at < segments; at++) this.#scanned.delete(firstSegment + at);
      const group: Group = { id, firstSegment, trees, round: -1, awaits: 'node-hashes' };
      if (sameBytes(root, groupRoot(trees, compute.digest))) {
        this.#settle(group, []);
        conversation.post(FRAME.equal, encodeId(id));
      } else {
        this.#groups.set(id, group);
        this.#open(group);
      }
    }
  }

  #open(group: Group): void {
    const { hashBytes, conversation } = this.#context;
    group.round++;
    if (group.round >= roundsOf(hashBytes)) throw malformed(`no proof of group ${group.id} in ${group.round} rounds`);
    group.awaits = 'node-hashes';
    const entries = group.trees.map((tree, index) => ({
      index,
      hashes: shortHashes(tree.root, DIGEST_BYTES, hashBytes, group.round),
    }));
    conversation.post(FRAME.segmentHashes, encodeHashList({ id: group.id, round: group.round, entries }));
  }

  onNodeHashes(body: Buffer): void {
    const { shape, hashBytes, conversation } = this.#context;
    const limits = {
      blockBytes: shape.segmentNodes * hashBytes,
      indexes: GROUP_SEGMENTS_MAX,
      entries: GROUP_SEGMENTS_MAX,
    };
    const list = decodeHashList(body, limits);
    const group = this.#group(list.id, 'node-hashes');
    if (list.round !== group.round)
      throw malformed(`node hashes of round ${list.round}, group ${group.id} is in ${group.round}`);
    const entries = list.entries.flatMap(({ index, hashes }) => {
      const tree = group.trees[index];
      if (tree === undefined) throw malformed(`segment ${index} of group ${group.id}`);
      return differingIndexes(shortHashes(tree.nodes, DIGEST_BYTES, hashBytes, list.round), hashes, hashBytes).map((node) => {
        const leaves = tree.leaves.subarray(node * NODE_LEAVES * TAG_BYTES, (node + 1) * NODE_LEAVES * TAG_BYTES);
        return { index: index * shape.segmentNodes + node, hashes: shortHashes(leaves, TAG_BYTES, hashBytes, list.round) };
      });
    });
    group.awaits = 'differing';
    conversation.post(FRAME.leafHashes, encodeHashList({ id: group.id, round: group.round, entries }));
  }

  /**
   * The short hashes only located; here everything that they judged equal is proven, or opened again by other bytes.
   */
  onDiffering(body: Buffer): void {
    const { shape, compute, conversation, selection } = this.#context;
    const perSegment = segmentLeaves(shape);
    const { group: id, indexes, rest } = decodeDiffering(body, GROUP_SEGMENTS_MAX * perSegment);
    const group = this.#group(id, 'differing');
    const first = group.firstSegment * perSegment;
    const leaves = Math.min(group.trees.length * perSegment, selection.count - first);
    if ((indexes.at(-1) ?? 0) >= leaves) throw malformed(`leaf ${indexes.at(-1)} of ${leaves} in group ${id}`);
    if (!sameBytes(rest, restProof(group.trees, indexes, shape, compute.digest))) return this.#open(group);
    this.#groups.delete(id);
    this.#settle(
      group,
      indexes.map((index) => first + index),
    );
    conversation.post(FRAME.agreed, encodeId(id));
  }

  #settle(group: Group, differing: readonly number[]): void {
    this.#settledSegments += group.trees.length;
    this.#context.onLocated(
      group.trees.map((_, at) => group.firstSegment + at),
      differing,
    );
    this.#context.conversation.notify();
  }

  #group(id: number, awaits: Group['awaits']): Group {
    const group = this.#groups.get(id);
    if (group === undefined || group.awaits !== awaits)
      throw malformed(`a question about group ${id} that is not open`);
    return group;
  }
}
