/** The settings of a relationship as options, shared by `enable` and `set`. */

import type { Option } from 'commander';
import { APPLICATION_CONSISTENT_HOURS_MAX, FREQUENCIES_SEC, RECOVERY_HISTORY_MAX } from '../model/limits.ts';
import { parseInterval } from '../model/schedule.ts';
import type { Params } from '../server/api/contract.ts';
import { integer, option, positive, size } from './command.ts';

const PRIORITY_MAX = 100;

export interface SettingOptions {
  frequency?: string;
  recoveryHistory?: number;
  appConsistentHours?: number;
  autoResync?: string;
  logLimit?: number;
  resyncPriority?: number;
  diskRate?: number;
  linkRate?: number;
  keepRecoveryPoints?: boolean;
  verifyEvery?: number;
}

type Settings = NonNullable<Params<'set'>['settings']>;

export function settingOptions(): Option[] {
  return [
    option('--frequency <seconds>', 'seconds between two log files').choices(FREQUENCIES_SEC.map(String)),
    option('--recovery-history <count>', 'hourly recovery points to keep beside the latest').argParser(
      integer(0, RECOVERY_HISTORY_MAX),
    ),
    option('--app-consistent-hours <hours>', 'application-consistent points so often, through the guest agent (--guest-agent of `set`); 0 = none')
      .argParser(integer(0, APPLICATION_CONSISTENT_HOURS_MAX)),
    option('--auto-resync <when>', 'off, on (at any time), or HH:MM-HH:MM of local time in which it may start'),
    option(
      '--log-limit <percent>',
      'tracking logs beyond this share of the disks require a resynchronization',
    ).argParser(positive),
    option('--resync-priority <n>', "place in the host's queue; smaller goes first").argParser(
      integer(0, PRIORITY_MAX),
    ),
    option(
      '--disk-rate <size>',
      'bytes per second that a resynchronization reads from each disk at most; 0 = no limit',
    ).argParser(size),
    option('--link-rate <size>', 'bytes per second that it uses of the link at most; 0 = no limit').argParser(size),
    option('--keep-recovery-points', 'keep the recovery points over a resynchronization where that is possible'),
    option('--no-keep-recovery-points', 'delete them, as their baseline changes'),
    option('--verify-every <days>', 'prove equality every so many days; 0 = only on demand').argParser(
      integer(0, 90),
    ),
  ];
}

/** Only what was given. Throws UnderstudyError usage INTERVAL_INVALID. */
export function settingsFrom(given: SettingOptions): Settings {
  const settings: Settings = {};
  if (given.frequency !== undefined)
    settings.frequencySec = Number(given.frequency) as (typeof FREQUENCIES_SEC)[number];
  if (given.recoveryHistory !== undefined) settings.recoveryHistory = given.recoveryHistory;
  if (given.appConsistentHours !== undefined) settings.applicationConsistentHours = given.appConsistentHours;
  if (given.autoResync !== undefined) settings.autoResync = parseInterval(given.autoResync);
  if (given.logLimit !== undefined) settings.logLimitPercent = given.logLimit;
  if (given.resyncPriority !== undefined) settings.resyncPriority = given.resyncPriority;
  if (given.keepRecoveryPoints !== undefined) settings.keepRecoveryPoints = given.keepRecoveryPoints;
  if (given.verifyEvery !== undefined) settings.verify = { everyDays: given.verifyEvery };
  if (given.diskRate !== undefined || given.linkRate !== undefined) {
    settings.resyncShare = {
      ...(given.diskRate === undefined ? {} : { diskBytesPerSec: given.diskRate || null }),
      ...(given.linkRate === undefined ? {} : { linkBytesPerSec: given.linkRate || null }),
    };
  }
  return settings;
}
