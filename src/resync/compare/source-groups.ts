/**
 * The source's half of locating: scans its segments, sends a root per group, and opens a group that differs level by
 * level. Each answer carries the answerer's hashes of the next level, so that one level costs one hop:
 *
 *   source: group root → target: segment hashes → source: node hashes → target: leaf hashes
 *         → source: differing leaves + proof of the rest → target: agreed
 */
import { malformed } from './byte-cursor.ts';
import type { ComparePart } from './compare-part.ts';
import {
  type SegmentTree,
  differingIndexes,
  groupRoot,
  isTag,
  restProof,
  roundsOf,
  sameBytes,
  shortHashes,
} from './digest-tree.ts';
import { FRAME, decodeHashList, decodeId, encodeDiffering, encodeGroup, encodeHashList } from './frames.ts';
import { ZeroTags } from './leaf-hasher.ts';
import { TAG_BYTES } from './leaf-tags.ts';
import { scanSegment, segmentCount, segmentPositions } from './segment-scan.ts';
import type { Settlement } from './settlement.ts';
import { DIGEST_BYTES, GROUP_SEGMENTS_MAX, NODE_LEAVES, SEGMENT_WINDOW, segmentLeaves } from './tree-shape.ts';

interface Group {
  id: number;
  firstSegment: number;
  trees: SegmentTree[];
  /** The last round that was opened; -1 before any answer. */
  round: number;
  awaits: 'verdict' | 'leaf-hashes';
  openedSegments: number[];
  /** Leaves within the group that any round has found. */
  differing: Set<number>;
}

export interface GroupContext extends ComparePart {
  settlement: Settlement;
  /** Positions of one group that differ, in order; `zero` when they read as zeroes on the source. */
  onDiffering(leaves: { position: number; zero: boolean }[]): void;
  onScanned(bytes: number): void;
  onSettled(): void;
}

export class SourceGroups {
  readonly #context: GroupContext;
  readonly #groups = new Map<number, Group>();
  readonly #zeroes: ZeroTags;
  #sent = 0;
  /**
   * Grows while nothing differs, falls back to one segment where something does: see docs/protocol/compare-stream.md.
   */
  #groupSize = 1;

  constructor(context: GroupContext) {
    this.#context = context;
    this.#zeroes = new ZeroTags(context.tag);
  }

  /** Scans all segments, at most a window ahead of what is settled, so that memory does not grow with the disk. */
  async scan(): Promise<void> {
    const { conversation, selection, shape, settlement, compute, hasher } = this.#context;
    const segments = segmentCount(selection, shape);
    let trees: SegmentTree[] = [];
    for (let segment = 0; segment < segments; segment++) {
      await conversation.until(() => segment < settlement.through + SEGMENT_WINDOW);
      trees.push(await scanSegment(segment, { selection, shape, hasher, digest: compute.digest }));
      const { first, count } = segmentPositions(segment, selection, shape);
      this.#context.onScanned(selection.bytesOf(first, count));
      if (trees.length < this.#groupSize && segment + 1 < segments) continue;
      this.#sendGroup(segment + 1 - trees.length, trees);
      trees = [];
    }
  }

  #sendGroup(firstSegment: number, trees: SegmentTree[]): void {
    const group: Group = {
      id: this.#sent++,
      firstSegment,
      trees,
      round: -1,
      awaits: 'verdict',
      openedSegments: [],
      differing: new Set(),
    };
    this.#groups.set(group.id, group);
    this.#groupSize = Math.min(GROUP_SEGMENTS_MAX, this.#groupSize * 2);
    this.#context.conversation.post(
      FRAME.group,
      encodeGroup(trees.length, groupRoot(trees, this.#context.compute.digest)),
    );
  }

  onEqual(body: Buffer): void {
    const group = this.#group(decodeId(body).id, 'verdict');
    if (group.round !== -1) throw malformed(`group ${group.id} is called equal after it differed`);
    this.#settle(group);
  }

  /**
   * The target's root differs, or a proof of the rest did not match: open the group with the hash bytes of this round.
   */
  onSegmentHashes(body: Buffer): void {
    const { shape, hashBytes, conversation } = this.#context;
    const list = decodeHashList(body, {
      blockBytes: hashBytes,
      indexes: GROUP_SEGMENTS_MAX,
      entries: GROUP_SEGMENTS_MAX,
    });
    const group = this.#group(list.id, 'verdict');
    if (list.round !== group.round + 1 || list.round >= roundsOf(hashBytes)) {
      throw malformed(`round ${list.round} of group ${group.id} after round ${group.round}`);
    }
    if (list.entries.length !== group.trees.length) {
      throw malformed(`${list.entries.length} segment hashes, group ${group.id} has ${group.trees.length}`);
    }
    this.#groupSize = 1;
    group.round = list.round;
    group.awaits = 'leaf-hashes';
    group.openedSegments = list.entries
      .filter(({ index, hashes }) => !sameBytes(shortHashes(group.trees[index]!.root, DIGEST_BYTES, hashBytes, list.round), hashes))
      .map(({ index }) => index);
    const entries = group.openedSegments.map((index) => ({
      index,
      hashes: shortHashes(group.trees[index]!.nodes, DIGEST_BYTES, hashBytes, list.round),
    }));
    if (entries.some(({ hashes }) => hashes.length !== shape.segmentNodes * hashBytes))
      throw new RangeError('a tree of another shape');
    conversation.post(FRAME.nodeHashes, encodeHashList({ id: group.id, round: list.round, entries }));
  }

  onLeafHashes(body: Buffer): void {
    const { shape, hashBytes, compute, conversation, selection } = this.#context;
    const nodes = GROUP_SEGMENTS_MAX * shape.segmentNodes;
    const list = decodeHashList(body, { blockBytes: NODE_LEAVES * hashBytes, indexes: nodes, entries: nodes });
    const group = this.#group(list.id, 'leaf-hashes');
    if (list.round !== group.round)
      throw malformed(`leaf hashes of round ${list.round}, group ${group.id} is in ${group.round}`);
    const positions = Math.min(
      group.trees.length * segmentLeaves(shape),
      selection.count - group.firstSegment * segmentLeaves(shape),
    );
    for (const { index, hashes } of list.entries) {
      const segment = Math.floor(index / shape.segmentNodes);
      if (!group.openedSegments.includes(segment)) throw malformed(`node ${index} of group ${group.id} was not opened`);
      const node = index % shape.segmentNodes;
      const leaves = group.trees[segment]!.leaves.subarray(node * NODE_LEAVES * TAG_BYTES, (node + 1) * NODE_LEAVES * TAG_BYTES);
      for (const leaf of differingIndexes(shortHashes(leaves, TAG_BYTES, hashBytes, list.round), hashes, hashBytes)) {
        const at = index * NODE_LEAVES + leaf;
        if (at >= positions) throw malformed(`leaf ${at} of group ${group.id} is past the end`);
        group.differing.add(at);
      }
    }
    group.awaits = 'verdict';
    const indexes = [...group.differing].sort((a, b) => a - b);
    const rest = restProof(group.trees, indexes, shape, compute.digest);
    conversation.post(FRAME.differing, encodeDiffering({ group: group.id, indexes, rest }));
  }

  /** The target has proven that everything but the listed leaves is equal. */
  onAgreed(body: Buffer): void {
    const group = this.#group(decodeId(body).id, 'verdict');
    if (group.round === -1) throw malformed(`group ${group.id} is agreed before it was opened`);
    this.#settle(group);
  }

  #settle(group: Group): void {
    const { shape, settlement, onDiffering, onSettled, conversation } = this.#context;
    this.#groups.delete(group.id);
    const perSegment = segmentLeaves(shape);
    const leaves = [...group.differing]
      .sort((a, b) => a - b)
      .map((index) => {
        const position = group.firstSegment * perSegment + index;
        return { position, zero: this.#isZero(group.trees[Math.floor(index / perSegment)]!, position) };
      });
    for (let at = 0; at < group.trees.length; at++) {
      const segment = group.firstSegment + at;
      const inside = leaves
        .map(({ position }) => position)
        .filter((position) => Math.floor(position / perSegment) === segment);
      const tree = group.trees[at]!;
      settlement.located(segment, inside, (position) => this.#isZero(tree, position));
    }
    if (leaves.length > 0) onDiffering(leaves);
    onSettled();
    conversation.notify();
  }

  #isZero({ leaves }: SegmentTree, position: number): boolean {
    const { shape, selection } = this.#context;
    // Only the last leaf may be a short one.
    const length = position === selection.count - 1 ? selection.rangeAt(position).length : shape.leafBytes;
    return isTag(leaves, position % segmentLeaves(shape), this.#zeroes.of(length));
  }

  #group(id: number, awaits: Group['awaits']): Group {
    const group = this.#groups.get(id);
    if (group === undefined || group.awaits !== awaits)
      throw malformed(`an answer about group ${id} that nobody asked for`);
    return group;
  }
}
