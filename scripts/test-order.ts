/**
 * The test files that take longest, longest first: the order in which scripts/run-tests.ts begins them; all others follow. It prints what they took: where
 * that has changed much, change the order here. Nothing but the time of a run depends on it.
 */
export const LONGEST_FIRST: readonly string[] = [
  'test/system/bad-use.test.ts',
  'test/system/resync-control.test.ts',
  'test/simulation/direction.sim.test.ts',
  'test/browser/tasks.test.ts',
  'test/guest/direction.guest.test.ts',
  'test/system/points.test.ts',
  'test/browser/steering.test.ts',
  'test/guest/resync.guest.test.ts',
  'test/house/lint.test.ts',
  'test/simulation/resync-phases.sim.test.ts',
  'test/guest/points.guest.test.ts',
  'test/simulation/resync.sim.test.ts',
  'test/mutation/broken-rules.test.ts',
  'test/system/counters.test.ts',
  'test/system/external-media.test.ts',
  'test/system/extended.test.ts',
  'test/crash/kill-under-load.test.ts',
  'test/simulation/replication.sim.test.ts',
  'test/guest/replication.guest.test.ts',
  'test/system/adapters.test.ts',
  'test/system/resync-primary-triggers.test.ts',
  'test/house/types.test.ts',
  'test/browser/keyboard.test.ts',
  'test/guest/at-rest.guest.test.ts',
  'test/simulation/failover.sim.test.ts',
];
