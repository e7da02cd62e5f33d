/**
 * Every bound of the product that is not a detail of one byte format, with its reason. Units last. What a user may change is in
 * settings.ts and takes its ranges from here.
 */

const KIB = 1024;
const MIB = 1024 * KIB;
const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;
export const DAY_SEC = 86_400;

/** The block of events 29242 and 29244, of `differingBytes` and of what travels: the page of every file system in use. */
export const BLOCK_BYTES = 4 * KIB;
/** One bit of the change map: 1 MiB keeps the map of a 64 TiB disk at 8 MiB, and re-reading one region costs 10 ms. */
export const REGION_BYTES = MIB;

/** Hyper-V's three frequencies; other values would promise recovery points that no Hyper-V administrator expects. */
export const FREQUENCIES_SEC = [30, 300, 900] as const;
/** Hyper-V Replica allows 0 to 24 hourly points beside the latest. */
export const RECOVERY_HISTORY_MAX = 24;
/** Hyper-V Replica takes application-consistent points every 1 to 12 hours. */
export const APPLICATION_CONSISTENT_HOURS_MAX = 12;
/** A start may be set at most this far ahead (Resume-VMReplication -ResynchronizeStartTime, IR start time). */
export const START_AHEAD_MS_MAX = 7 * DAY_MS;

/** Share of the VM's virtual disk sizes that tracking logs may take before trigger 2. */
export const LOG_LIMIT_PERCENT_DEFAULT = 50;
/** Below this a log could not hold a single epoch of a small disk; fractions exist so that tests reach the limit quickly. */
export const LOG_LIMIT_PERCENT_MIN = 0.001;
export const LOG_LIMIT_PERCENT_MAX = 100;
/** From this share of the limit on, health warns: the administrator must have time to act before the trigger. */
export const LOG_WARNING_SHARE = 0.8;

/** How long a guest write may wait for replication (promise 1). Longer stalls are felt as a hung disk by guests. */
export const BOUNDED_WAIT_MS_DEFAULT = 2000;
export const BOUNDED_WAIT_MS_MIN = 50;
/** Linux guests report a hung task after 120 s and many databases give up after 30 s: stay well below. */
export const BOUNDED_WAIT_MS_MAX = 10 * SECOND_MS;

/** Resyncs read whole disks; two at once on one spindle are slower than one after the other. */
export const RESYNC_CONCURRENCY_DEFAULT = 1;
export const RESYNC_CONCURRENCY_MAX = 64;
/** Hyper-V's own default for VMs sent in parallel, and its largest value. */
export const TRANSFER_CONCURRENCY_DEFAULT = 3;
export const TRANSFER_CONCURRENCY_MAX = 1024;

/** Above this share of missed cycles health is Warning (Hyper-V Replica). */
export const MISSED_CYCLES_PERCENT_MAX = 20;
/** Longer since the last send or receive: Warning (Hyper-V Replica). */
export const REPLICATION_AGE_MS_MAX = HOUR_MS;
/** A test failover holds back applying: from here on it may have been forgotten. */
export const TEST_FAILOVER_MS_MAX = HOUR_MS;
/** A larger average latency is not Normal (Hyper-V Replica). */
export const AVERAGE_LATENCY_MS_MAX = 5 * MINUTE_MS;

/** Lengths of the monitoring interval that Hyper-V allows: divisors of a day, then whole days up to a week. */
export const MONITORING_INTERVALS_SEC = [
  ...[1, 2, 3, 4, 6, 8, 12, 24].map((hours) => hours * 3600),
  ...[2, 3, 4, 5, 6, 7].map((days) => days * DAY_SEC),
] as readonly number[];

/** Retries after a recoverable failure, in minutes; the last one repeats (back-off of Hyper-V's replication engine). */
export const RETRY_DELAYS_MS = [1, 2, 4, 8, 10, 30].map((minutes) => minutes * MINUTE_MS) as readonly number[];

/** A VM name becomes a file name, an NBD export name and a label; 128 UTF-16 units fit all three with room for suffixes. */
export const VM_NAME_LENGTH_MAX = 128;
/** SCSI allows 64 disks on one controller; nobody protects more in one VM. */
export const DISKS_PER_VM_MAX = 64;
