/** The eight reasons why two disks can no longer be known equal (docs/operating/states.md). */

import type { Side } from './replication-state.ts';

export type TriggerFacts = {
  /** Where the cause lies; decides what may be proven about the other side. */
  side: Side | 'either';
  /** Completes the sentence "resynchronization is required because …". */
  because: string;
  /**
   * The replaced side may hold newer data than the side that would overwrite it: nothing starts by itself, an explicit command
   * must name what will be lost (R21).
   */
  needsExplicitStart: boolean;
};

export const RESYNC_TRIGGERS = {
  1: { side: 'primary', because: 'a disk was modified while the VM was off', needsExplicitStart: false },
  2: { side: 'primary', because: 'the tracking logs outgrew their limit', needsExplicitStart: false },
  3: { side: 'primary', because: 'a write to the tracking log failed or took too long', needsExplicitStart: false },
  4: { side: 'primary', because: 'the tracking log was not closed gracefully', needsExplicitStart: false },
  5: { side: 'primary', because: 'the VM or its volume was reverted to an older point', needsExplicitStart: true },
  6: {
    side: 'replica',
    because: 'a log is missing, out of sequence or invalid and nobody can supply it',
    needsExplicitStart: false,
  },
  7: { side: 'replica', because: 'the replica was restored, imported or reverted', needsExplicitStart: true },
  8: { side: 'either', because: 'the user asked for it', needsExplicitStart: false },
} as const satisfies Record<number, TriggerFacts>;

export type TriggerNumber = keyof typeof RESYNC_TRIGGERS;

/**
 * R21: the replica may know something later than the primary, which a resynchronization would overwrite. So it is after a revert, and where
 * nobody can tell whether there was one: a disk without marks (`mayBeOlder`).
 */
export const mayOverwriteNewer = ({ trigger, mayBeOlder }: { trigger: TriggerNumber; mayBeOlder?: boolean }): boolean =>
  RESYNC_TRIGGERS[trigger].needsExplicitStart || mayBeOlder === true;

/** Older recovery points stay when the settings say so; triggers 6 and 7 are the replica's: there its points have lost what they rest on. */
export const keepsOlderPoints = ({ keepRecoveryPoints }: { keepRecoveryPoints: boolean }, trigger: TriggerNumber): boolean =>
  keepRecoveryPoints && trigger !== 6 && trigger !== 7;

/** How much is repaired, smallest first (design §7 "the ladder"). */
export const RUNGS = ['logs', 'suspect-regions', 'full-compare', 'full-copy'] as const;
export type Rung = (typeof RUNGS)[number];
