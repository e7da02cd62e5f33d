/** What a user may set, with ranges and defaults. Everything that enters from outside is parsed by these schemas. */

import { z } from 'zod';
import {
  APPLICATION_CONSISTENT_HOURS_MAX,
  BOUNDED_WAIT_MS_DEFAULT,
  BOUNDED_WAIT_MS_MAX,
  BOUNDED_WAIT_MS_MIN,
  DAY_SEC,
  FREQUENCIES_SEC,
  LOG_LIMIT_PERCENT_DEFAULT,
  LOG_LIMIT_PERCENT_MAX,
  LOG_LIMIT_PERCENT_MIN,
  MONITORING_INTERVALS_SEC,
  RECOVERY_HISTORY_MAX,
  RESYNC_CONCURRENCY_DEFAULT,
  RESYNC_CONCURRENCY_MAX,
  TRANSFER_CONCURRENCY_DEFAULT,
  TRANSFER_CONCURRENCY_MAX,
  VM_NAME_LENGTH_MAX,
} from './limits.ts';
import { UnderstudyError } from './errors.ts';

/** `HH:MM:SS` of a day, in the local time of the host. */
export const timeOfDaySchema = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d:[0-5]\d$/, 'must be HH:MM:SS');

/** A name that is safe as a file name, an NBD export name and a metric label: no control characters, slashes or outer blanks. */
export const vmNameSchema = z
  .string()
  .min(1)
  .max(VM_NAME_LENGTH_MAX)
  .refine((name) => !/[\p{Cc}/\\]/u.test(name) && name.trim() === name && name !== '.' && name !== '..', {
    error: 'must not hold control characters or slashes, nor begin or end with a blank',
  });

/**
 * When an automatic resync may start: local times, both ends inside the window, which may cross midnight. `end + 1 s == start`
 * means any time. The window governs the start; a run goes on beyond its end. Off keeps the times for when it is on again.
 */
export const autoResyncSchema = z
  .strictObject({
    enabled: z.boolean().default(true),
    intervalStart: timeOfDaySchema.default('18:30:00'),
    intervalEnd: timeOfDaySchema.default('06:00:00'),
  })
  .refine((window) => window.intervalStart !== window.intervalEnd, {
    error: 'intervalStart and intervalEnd are equal; for any time give 00:00:00 and 23:59:59',
  });
export type AutoResync = z.infer<typeof autoResyncSchema>;

/** Share of the resources of both hosts that a resync or verify may take; the reader yields to guest I/O besides. */
export const resyncShareSchema = z.strictObject({
  /** Bytes per second read from each disk; null: only limited by yielding to the guest. */
  diskBytesPerSec: z.int().min(65_536).nullable().default(null),
  /** Bytes per second on the link, both directions together; null: unlimited. */
  linkBytesPerSec: z.int().min(1024).nullable().default(null),
});
export type ResyncShare = z.infer<typeof resyncShareSchema>;

export const verifyScheduleSchema = z.strictObject({
  /** Days between two verifies; 0 is never. */
  everyDays: z.int().min(0).max(90).default(0),
  at: timeOfDaySchema.default('01:00:00'),
  diskBytesPerSec: z
    .int()
    .min(65_536)
    .default(16 * 1024 * 1024),
});
export type VerifySchedule = z.infer<typeof verifyScheduleSchema>;

/** One relationship, as its primary holds it; the replica is told. */
export const relationshipSettingsSchema = z
  .strictObject({
    frequencySec: z.literal([...FREQUENCIES_SEC]).default(300),
    /** Hourly points kept beside the latest. */
    recoveryHistory: z.int().min(0).max(RECOVERY_HISTORY_MAX).default(0),
    /** Hours between application-consistent points; 0 is off. Needs `recoveryHistory` above 0. */
    applicationConsistentHours: z.int().min(0).max(APPLICATION_CONSISTENT_HOURS_MAX).default(0),
    compression: z.boolean().default(true),
    excludedDisks: z.array(z.string().min(1)).default([]),
    autoResync: autoResyncSchema.prefault({}),
    /** Smaller goes first in the host's resync queue. */
    resyncPriority: z.int().min(0).max(100).default(50),
    resyncShare: resyncShareSchema.prefault({}),
    /** The merge of a resync keeps the old recovery points where the trigger allows it (design §7 step 7). */
    keepRecoveryPoints: z.boolean().default(false),
    /** Tracking logs may take this share of the sum of the virtual disk sizes (trigger 2). */
    logLimitPercent: z
      .number()
      .min(LOG_LIMIT_PERCENT_MIN)
      .max(LOG_LIMIT_PERCENT_MAX)
      .default(LOG_LIMIT_PERCENT_DEFAULT),
    /** Longest time a guest write waits for its tracking log (trigger 3). */
    boundedWaitMs: z.int().min(BOUNDED_WAIT_MS_MIN).max(BOUNDED_WAIT_MS_MAX).default(BOUNDED_WAIT_MS_DEFAULT),
    verify: verifyScheduleSchema.prefault({}),
  })
  .refine((settings) => settings.applicationConsistentHours === 0 || settings.recoveryHistory > 0, {
    error: 'applicationConsistentHours needs recoveryHistory of at least 1',
  });
export type RelationshipSettings = z.infer<typeof relationshipSettingsSchema>;
/** What `set` accepts: any subset; nested groups too. Applied by `changeSettings`. */
export type SettingsChange = {
  [K in keyof RelationshipSettings]?: RelationshipSettings[K] extends unknown[] | number | boolean
    ? RelationshipSettings[K]
    : Partial<RelationshipSettings[K]>;
};

/** One host. */
export const hostSettingsSchema = z.strictObject({
  monitoringIntervalSec: z
    .int()
    .refine((seconds) => MONITORING_INTERVALS_SEC.includes(seconds), {
      error: 'must be 1, 2, 3, 4, 6, 8, 12 or 24 hours, or 2 to 7 days',
    })
    .default(DAY_SEC / 2),
  monitoringStart: timeOfDaySchema.default('09:00:00'),
  resyncConcurrency: z.int().min(1).max(RESYNC_CONCURRENCY_MAX).default(RESYNC_CONCURRENCY_DEFAULT),
  transferConcurrency: z.int().min(1).max(TRANSFER_CONCURRENCY_MAX).default(TRANSFER_CONCURRENCY_DEFAULT),
});
export type HostSettings = z.infer<typeof hostSettingsSchema>;

/**
 * The settings after a change: groups are merged field by field, then all is checked together. `undefined` leaves a
 * field as it is. Throws UnderstudyError usage BAD_SETTING naming each field that is wrong.
 */
export function changeSettings(before: RelationshipSettings, change: SettingsChange): RelationshipSettings {
  const merged: Record<string, unknown> = { ...before, ...withoutUndefined(change) };
  for (const group of ['autoResync', 'resyncShare', 'verify'] as const) {
    merged[group] = { ...before[group], ...withoutUndefined(change[group] ?? {}) };
  }
  return parseInput(relationshipSettingsSchema, merged, 'BAD_SETTING', 'Correct the value and try again.');
}

/** Parses what came from a person or a file; throws UnderstudyError usage `code` with every finding in its message. */
export function parseInput<Schema extends z.ZodType>(
  schema: Schema,
  input: unknown,
  code: string,
  remedy: string,
): z.output<Schema> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const findings = result.error.issues.map(({ path, message }) =>
    path.length === 0 ? message : `${path.join('.')}: ${message} (given: ${shown(valueAt(input, path))})`,
  );
  throw new UnderstudyError('usage', code, findings.join('; '), remedy, { cause: result.error });
}

function withoutUndefined(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input);
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 80);
}

/** A refusal by these schemas in words a person understands; anything else is handed back as it is. */
export function settingsError(error: unknown): unknown {
  if (!(error instanceof z.ZodError)) return error;
  const what = error.issues
    .map(({ path, message }) => (path.length === 0 ? message : `${path.join('.')}: ${message}`))
    .join('; ');
  return new UnderstudyError('usage', 'BAD_SETTING', `this setting cannot be: ${what}`, 'See: understudy set --help', {
    cause: error,
  });
}
