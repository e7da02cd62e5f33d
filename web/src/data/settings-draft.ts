/** Settings as a form holds them, and what a change of the form asks the server to change. */
import type { RelationshipSettings } from '../../../src/model/settings.ts';
import type { Params } from '../../../src/server/api/contract.ts';

type SettingsChange = NonNullable<Params<'enable'>['settings']>;
export type ResyncMode = 'manual' | 'always' | 'hours';

export interface Draft {
  replica: string;
  fingerprint: string;
  compression: boolean;
  excludedDisks: string[];
  frequencySec: 30 | 300 | 900;
  recoveryHistory: number;
  applicationConsistentHours: number;
  keepRecoveryPoints: boolean;
  resync: ResyncMode;
  /** HH:MM */
  from: string;
  to: string;
  logLimitPercent: string;
  resyncPriority: string;
  /** Empty = no limit. */
  diskMiBPerSec: string;
  linkMiBPerSec: string;
  verifyDays: string;
  verifyAt: string;
}

const MIB = 1024 * 1024;
export const DEFAULT_DRAFT: Draft = {
  replica: '',
  fingerprint: '',
  compression: true,
  excludedDisks: [],
  frequencySec: 300,
  recoveryHistory: 0,
  applicationConsistentHours: 0,
  keepRecoveryPoints: false,
  resync: 'hours',
  from: '18:30',
  to: '06:00',
  logLimitPercent: '50',
  resyncPriority: '50',
  diskMiBPerSec: '',
  linkMiBPerSec: '',
  verifyDays: '0',
  verifyAt: '01:00',
};

const mib = (value: number | null): string => (value === null ? '' : String(value / MIB));

export function draftOf(settings: RelationshipSettings, remote: { host: string; port: number; fingerprint: string }): Draft {
  const { enabled, intervalStart, intervalEnd } = settings.autoResync;
  const always = intervalStart === '00:00:00' && intervalEnd === '23:59:59';
  return {
    replica: `${remote.host.includes(':') ? `[${remote.host}]` : remote.host}:${remote.port}`,
    fingerprint: remote.fingerprint,
    compression: settings.compression,
    excludedDisks: settings.excludedDisks,
    frequencySec: settings.frequencySec,
    recoveryHistory: settings.recoveryHistory,
    applicationConsistentHours: settings.applicationConsistentHours,
    keepRecoveryPoints: settings.keepRecoveryPoints,
    resync: enabled ? (always ? 'always' : 'hours') : 'manual',
    from: always ? DEFAULT_DRAFT.from : intervalStart.slice(0, 5),
    to: always ? DEFAULT_DRAFT.to : intervalEnd.slice(0, 5),
    logLimitPercent: String(settings.logLimitPercent),
    resyncPriority: String(settings.resyncPriority),
    diskMiBPerSec: mib(settings.resyncShare.diskBytesPerSec),
    linkMiBPerSec: mib(settings.resyncShare.linkBytesPerSec),
    verifyDays: String(settings.verify.everyDays),
    verifyAt: settings.verify.at.slice(0, 5),
  };
}

/** All of a draft as the server takes it. */
export function settingsOf(draft: Draft): SettingsChange {
  const share = (text: string) => (text.trim() === '' ? null : Math.round(Number(text) * MIB));
  return {
    compression: draft.compression,
    excludedDisks: draft.excludedDisks,
    frequencySec: draft.frequencySec,
    recoveryHistory: draft.recoveryHistory,
    applicationConsistentHours: draft.recoveryHistory === 0 ? 0 : draft.applicationConsistentHours,
    keepRecoveryPoints: draft.keepRecoveryPoints,
    autoResync: autoResyncOf(draft),
    logLimitPercent: Number(draft.logLimitPercent),
    resyncPriority: Number(draft.resyncPriority),
    resyncShare: { diskBytesPerSec: share(draft.diskMiBPerSec), linkBytesPerSec: share(draft.linkMiBPerSec) },
    verify: { everyDays: Number(draft.verifyDays), at: `${draft.verifyAt}:00` },
  };
}

function autoResyncOf({ resync, from, to }: Draft): NonNullable<SettingsChange['autoResync']> {
  if (resync === 'manual') return { enabled: false };
  return resync === 'always'
    ? { enabled: true, intervalStart: '00:00:00', intervalEnd: '23:59:59' }
    : { enabled: true, intervalStart: `${from}:00`, intervalEnd: `${to}:00` };
}

export type SettingsCall = Omit<Params<'set'>, 'name'>;

/** Only what differs, so that two people's changes do not undo each other; null when nothing does. */
export function changesOf(before: Draft, after: Draft): SettingsCall | null {
  const [was, is] = [settingsOf(before), settingsOf(after)] as [Record<string, unknown>, Record<string, unknown>];
  const settings = Object.fromEntries(
    Object.entries(is).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(was[key])),
  ) as SettingsChange;
  const change: SettingsCall = {
    ...(Object.keys(settings).length === 0 ? {} : { settings }),
    ...(before.replica === after.replica ? {} : { replica: after.replica }),
    ...(before.fingerprint === after.fingerprint ? {} : { fingerprint: after.fingerprint }),
  };
  return Object.keys(change).length === 0 ? null : change;
}
