/** The settings of a relationship as Enable-VMReplication and Set-VMReplication take them. */

import { UnderstudyError } from '../../model/errors.ts';
import type { Params } from '../../server/api/contract.ts';
import { listOf, maybe, numberOf, textOf, truthOf } from './cmdlet.ts';
import type { CmdletContext } from './cmdlet.ts';
import type { Bound, Parameter } from './parameters.ts';

type Settings = NonNullable<Params<'set'>['settings']>;

export const SETTING_PARAMETERS: readonly Parameter[] = [
  {
    name: 'AuthenticationType',
    type: ['Kerberos', 'Certificate'],
    aliases: ['AuthType'],
    position: 3,
    only: { value: 'Certificate', why: 'hosts know each other by the fingerprints of their certificates' },
  },
  {
    name: 'ReplicaFingerprint',
    type: 'string',
    aliases: ['CertificateThumbprint', 'Thumbprint', 'Cert', 'Fingerprint'],
  },
  { name: 'CompressionEnabled', type: 'bool' },
  { name: 'ReplicateHostKvpItems', type: 'bool', unsupported: 'guests have no key-value exchange with this host' },
  { name: 'BypassProxyServer', type: 'bool' },
  {
    name: 'EnableWriteOrderPreservationAcrossDisks',
    type: 'bool',
    only: { value: true, why: 'all disks of a VM are one point in time, always' },
  },
  { name: 'VSSSnapshotFrequencyHour', type: 'int', aliases: ['VSSFreq'] },
  { name: 'RecoveryHistory', type: 'int', aliases: ['RecHist'] },
  { name: 'ReplicationFrequencySec', type: 'int', aliases: ['RepFreq'] },
  { name: 'AutoResynchronizeEnabled', type: 'bool', aliases: ['AutoResync'] },
  { name: 'AutoResynchronizeIntervalStart', type: 'time-of-day', aliases: ['AutoResyncStart'] },
  { name: 'AutoResynchronizeIntervalEnd', type: 'time-of-day', aliases: ['AutoResyncEnd'] },
];

/** Only what was given; undefined when nothing was. Throws UnderstudyError usage ARGUMENT_INVALID. */
export function settingsFrom(bound: Bound, context: CmdletContext): Settings | undefined {
  const autoResync = {
    ...maybe('enabled', truthOf(bound, 'AutoResynchronizeEnabled')),
    ...maybe('intervalStart', textOf(bound, 'AutoResynchronizeIntervalStart')),
    ...maybe('intervalEnd', textOf(bound, 'AutoResynchronizeIntervalEnd')),
  };
  const hours =
    truthOf(bound, 'DisableVSSSnapshotReplication') === true ? 0 : numberOf(bound, 'VSSSnapshotFrequencyHour');
  const settings: Settings = {
    ...maybe('frequencySec', frequency(numberOf(bound, 'ReplicationFrequencySec'))),
    ...maybe('recoveryHistory', numberOf(bound, 'RecoveryHistory')),
    ...maybe('applicationConsistentHours', hours),
    ...maybe('compression', truthOf(bound, 'CompressionEnabled')),
    ...maybe(
      'excludedDisks',
      listOf(bound, 'ExcludedVhdPath')?.map((disk) => context.path(disk)),
    ),
    ...(Object.keys(autoResync).length === 0 ? {} : { autoResync }),
  };
  return Object.keys(settings).length === 0 ? undefined : settings;
}

function frequency(seconds: number | undefined): 30 | 300 | 900 | undefined {
  if (seconds === undefined || seconds === 30 || seconds === 300 || seconds === 900) return seconds;
  throw new UnderstudyError(
    'usage',
    'ARGUMENT_INVALID',
    `-ReplicationFrequencySec ${seconds} is not 30, 300 or 900`,
    'Give 30, 300 or 900.',
  );
}

/** The parameters by which hosts know each other, wherever a replica server is named. */
export const AUTHENTICATION: readonly Parameter[] = SETTING_PARAMETERS.slice(0, 2);

/** `HOST:PORT` of -ReplicaServerName and -ReplicaServerPort; an IPv6 address in brackets. */
export function replicaAddress(bound: Bound): string | undefined {
  const name = textOf(bound, 'ReplicaServerName');
  const port = numberOf(bound, 'ReplicaServerPort');
  if (name === undefined || port === undefined) {
    if (name === undefined && port === undefined) return undefined;
    throw new UnderstudyError(
      'usage',
      'ARGUMENT_MISSING',
      '-ReplicaServerName and -ReplicaServerPort belong together',
      'Give both.',
    );
  }
  return name.includes(':') && !name.startsWith('[') ? `[${name}]:${port}` : `${name}:${port}`;
}
