/** What every part of one side of a compare works with. */
import type { Compute } from '../../model/ports.ts';
import type { Conversation } from './conversation.ts';
import type { LeafHasher } from './leaf-hasher.ts';
import type { TagInto } from './leaf-tags.ts';
import type { Selection } from './selection.ts';
import type { TreeShape } from './tree-shape.ts';

export interface ComparePart {
  conversation: Conversation;
  selection: Selection;
  shape: TreeShape;
  /** Reads this side's disk. */
  hasher: LeafHasher;
  compute: Compute;
  /** Under the key of this compare. */
  tag: TagInto;
  /** Of each node hash, or page hash, that this part sends. */
  hashBytes: number;
}
