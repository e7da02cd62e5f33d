/** The cmdlets about this host: what it is, and which peers may keep replicas on it. */

import { UnderstudyError } from '../../model/errors.ts';
import type { AuthorizationEntry } from '../../server/api/contract.ts';
import { maybe, PASSTHRU, required, textOf, truthOf } from './cmdlet.ts';
import type { Cmdlet, CmdletContext } from './cmdlet.ts';
import type { Bound, Parameter } from './parameters.ts';
import { authorizationRow, serverRow } from './records.ts';
import { AUTHENTICATION, replicaAddress } from './setting-parameters.ts';
import { matches } from './wildcard.ts';

const FINGERPRINT = /^[0-9a-f]{2}(:?[0-9a-f]{2}){31}$/i;

const ALLOWED: Parameter = { name: 'AllowedPrimaryServer', type: 'string', aliases: ['AllowedPS'], position: 0 };
const STORAGE: Parameter = { name: 'ReplicaStorageLocation', type: 'string', aliases: ['StorageLoc'], position: 1 };
const TRUST_GROUP: Parameter = { name: 'TrustGroup', type: 'string', position: 2 };
const THUMBPRINT: Parameter = {
  name: 'PrimaryFingerprint',
  type: 'string',
  aliases: ['CertificateThumbprint', 'Thumbprint', 'Fingerprint'],
};

/** A peer is known by its fingerprint: `*` is any, a name needs the fingerprint beside it. */
function fingerprintOf(cmdlet: string, bound: Bound, server: string): string {
  const given =
    textOf(bound, 'PrimaryFingerprint') ?? (FINGERPRINT.test(server) ? server : server === '*' ? 'any' : undefined);
  if (given !== undefined) return given;
  throw new UnderstudyError(
    'usage',
    'ARGUMENT_MISSING',
    `${cmdlet} needs the fingerprint of '${server}'`,
    'Add -PrimaryFingerprint; the other host shows it with: understudy fingerprint',
  );
}

async function entries(bound: Bound, context: CmdletContext): Promise<AuthorizationEntry[]> {
  const [server, group, storage] = [
    textOf(bound, 'AllowedPrimaryServer'),
    textOf(bound, 'TrustGroup'),
    textOf(bound, 'ReplicaStorageLocation'),
  ];
  const all = await context.call('authorizations', {});
  const isServer = ({ name, fingerprint }: AuthorizationEntry, wanted: string): boolean =>
    [name ?? '', fingerprint, fingerprint === 'any' ? '*' : ''].some((text) => text !== '' && matches(wanted, text));
  return all.filter(
    (entry) =>
      (server === undefined || isServer(entry, server)) &&
      (group === undefined || matches(group, entry.trustGroup)) &&
      (storage === undefined || matches(storage, entry.storage ?? '')),
  );
}

/** New and Set do the same: the entry of a fingerprint is written. */
async function write(cmdlet: string, bound: Bound, context: CmdletContext): Promise<AuthorizationEntry | null> {
  const server = required(cmdlet, bound, 'AllowedPrimaryServer');
  const storage = textOf(bound, 'ReplicaStorageLocation');
  if (truthOf(bound, 'WhatIf') === true) {
    context.stdout.write(`What if: Performing the operation "${cmdlet}" on target "${server}".\n`);
    return null;
  }
  return context.call('authorize', {
    fingerprint: fingerprintOf(cmdlet, bound, server),
    ...maybe('name', FINGERPRINT.test(server) || server === '*' ? undefined : server),
    ...maybe('storage', storage === undefined ? undefined : context.path(storage)),
    ...maybe('trustGroup', textOf(bound, 'TrustGroup')),
  });
}

const NEW: Cmdlet = {
  name: 'New-VMReplicationAuthorizationEntry',
  summary: 'Lets a primary server keep replicas on this host',
  parameters: [ALLOWED, STORAGE, TRUST_GROUP, THUMBPRINT],
  async run(bound, context) {
    required('New-VMReplicationAuthorizationEntry', bound, 'ReplicaStorageLocation');
    required('New-VMReplicationAuthorizationEntry', bound, 'TrustGroup');
    const entry = await write('New-VMReplicationAuthorizationEntry', bound, context);
    return entry === null ? [] : [authorizationRow(entry)];
  },
};

const SET: Cmdlet = {
  name: 'Set-VMReplicationAuthorizationEntry',
  summary: 'Changes where and in which trust group a primary server keeps replicas',
  parameters: [ALLOWED, STORAGE, TRUST_GROUP, THUMBPRINT, PASSTHRU],
  async run(bound, context) {
    const server = required('Set-VMReplicationAuthorizationEntry', bound, 'AllowedPrimaryServer');
    const [known, ...others] = await entries(new Map([['AllowedPrimaryServer', server]]), context);
    if (known === undefined || others.length > 0) throw notOne(server, others.length + (known === undefined ? 0 : 1));
    const whole = new Map<string, string | number | boolean | readonly string[]>([
      ['PrimaryFingerprint', known.fingerprint],
      ['TrustGroup', known.trustGroup],
      ...(known.storage === null ? [] : ([['ReplicaStorageLocation', known.storage]] as const)),
      ...bound,
    ]);
    const entry = await write('Set-VMReplicationAuthorizationEntry', whole, context);
    return entry === null || truthOf(bound, 'Passthru') !== true ? [] : [authorizationRow(entry)];
  },
};

const GET: Cmdlet = {
  name: 'Get-VMReplicationAuthorizationEntry',
  summary: 'The primary servers that may keep replicas on this host',
  parameters: [ALLOWED, STORAGE, TRUST_GROUP],
  run: async (bound, context) => (await entries(bound, context)).map(authorizationRow),
};

const REMOVE: Cmdlet = {
  name: 'Remove-VMReplicationAuthorizationEntry',
  summary: 'Takes the authorization back; replicas that exist stay',
  parameters: [ALLOWED, TRUST_GROUP],
  async run(bound, context) {
    const server = textOf(bound, 'AllowedPrimaryServer') ?? textOf(bound, 'TrustGroup');
    if (server === undefined) required('Remove-VMReplicationAuthorizationEntry', bound, 'AllowedPrimaryServer');
    const found = await entries(bound, context);
    if (found.length === 0) throw notOne(server ?? '', 0);
    for (const { fingerprint, name } of found) {
      if (truthOf(bound, 'WhatIf') === true) {
        context.stdout.write(
          `What if: Performing the operation "Remove-VMReplicationAuthorizationEntry" on target "${name ?? fingerprint}".\n`,
        );
      } else await context.call('unauthorize', { fingerprint });
    }
    return [];
  },
};

function notOne(server: string, count: number): UnderstudyError {
  return new UnderstudyError(
    'usage',
    'AUTHORIZATION_UNKNOWN',
    count === 0 ? `there is no authorization for '${server}'` : `'${server}' means ${count} authorizations`,
    'Get-VMReplicationAuthorizationEntry lists them.',
  );
}

const GET_SERVER: Cmdlet = {
  name: 'Get-VMReplicationServer',
  summary: 'This host as a replica server',
  parameters: [],
  run: async (_bound, context) => [
    serverRow(await context.call('fingerprint', {}), await context.call('authorizations', {})),
  ],
};

const BY_SERVE = 'it is an option of the server: understudy serve --help';
const NO_KERBEROS = 'hosts know each other by the fingerprints of their certificates';
const ANY_GROUP = 'DEFAULT';

/** Whom this host lets in at all is the list of authorizations; "any server" is one entry of it. */
const SET_SERVER: Cmdlet = {
  name: 'Set-VMReplicationServer',
  summary: 'Lets any server keep replicas on this host, or no longer',
  parameters: [
    { name: 'ReplicationEnabled', type: 'bool', aliases: ['RepEnabled'], position: 0,
      only: { value: true, why: 'it is while a server is authorized; see Remove-VMReplicationAuthorizationEntry' } },
    { name: 'AllowedAuthenticationType', type: ['Kerberos', 'Certificate', 'CertificateAndKerberos'], aliases: ['AuthType'], position: 1,
      only: { value: 'Certificate', why: NO_KERBEROS } },
    { name: 'ReplicationAllowedFromAnyServer', type: 'bool', aliases: ['AllowAnyServer'], position: 2 },
    { name: 'DefaultStorageLocation', type: 'string', aliases: ['StorageLoc'] },
    { name: 'CertificateThumbprint', type: 'string', unsupported: 'the server makes its own certificate' },
    { name: 'KerberosAuthenticationPort', type: 'int', aliases: ['KerbAuthPort'], unsupported: NO_KERBEROS },
    { name: 'KerberosAuthenticationPortMapping', type: 'string', unsupported: NO_KERBEROS },
    { name: 'CertificateAuthenticationPort', type: 'int', aliases: ['CertAuthPort'], unsupported: BY_SERVE },
    { name: 'CertificateAuthenticationPortMapping', type: 'string', unsupported: BY_SERVE },
    { name: 'MonitoringInterval', type: 'time-span', unsupported: 'it is the same on every host; Get-VMReplicationServer shows it' },
    { name: 'MonitoringStartTime', type: 'time-of-day', unsupported: 'it is the same on every host; Get-VMReplicationServer shows it' },
    { name: 'Force', type: 'switch' },
    PASSTHRU,
  ],
  async run(bound, context) {
    const [any, storage] = [truthOf(bound, 'ReplicationAllowedFromAnyServer'), textOf(bound, 'DefaultStorageLocation')];
    const known = (await context.call('authorizations', {})).find(({ fingerprint }) => fingerprint === 'any');
    if (any === undefined && storage === undefined) {
      throw new UnderstudyError('usage', 'ARGUMENT_MISSING', 'Set-VMReplicationServer is given nothing to change', 'See: Get-Help Set-VMReplicationServer');
    }
    if (storage !== undefined && (any === false || (any === undefined && known === undefined))) {
      throw new UnderstudyError('usage', 'ARGUMENT_INVALID', '-DefaultStorageLocation is for any server, and none but those that are named is allowed',
        'Give it with -ReplicationAllowedFromAnyServer 1, or per server: Set-VMReplicationAuthorizationEntry -ReplicaStorageLocation.');
    }
    if (truthOf(bound, 'WhatIf') === true) {
      context.stdout.write('What if: Performing the operation "Set-VMReplicationServer" on target "this host".\n');
    } else if (any === false) {
      if (known !== undefined) await context.call('unauthorize', { fingerprint: 'any' });
    } else {
      const folder = storage === undefined ? (known?.storage ?? undefined) : context.path(storage);
      await context.call('authorize', { fingerprint: 'any', ...maybe('storage', folder), trustGroup: known?.trustGroup ?? ANY_GROUP });
    }
    return truthOf(bound, 'Passthru') === true ? GET_SERVER.run(bound, context, null) : [];
  },
};

const TEST_NAME = 'Test-VMReplicationConnection';
const TEST: Cmdlet = {
  name: TEST_NAME,
  summary: 'Finds out whether a replica server answers and lets this host in',
  parameters: [
    { name: 'ReplicaServerName', type: 'string', aliases: ['ReplicaServer'], position: 0 },
    { name: 'ReplicaServerPort', type: 'int', aliases: ['ReplicaPort'], position: 1 },
    ...AUTHENTICATION.map((parameter, index) => ({ ...parameter, position: 2 + index })),
    { name: 'BypassProxyServer', type: 'bool' },
  ],
  async run(bound, context) {
    required(TEST_NAME, bound, 'ReplicaServerName');
    const fingerprint = required(TEST_NAME, bound, 'ReplicaFingerprint');
    const replica = replicaAddress(bound) ?? '';
    const { hostName } = await context.call('test-connection', { replica, fingerprint });
    context.stdout.write(`The connection to the replica server '${hostName}' (${replica}) was established.\n`);
    return [];
  },
};

export const SERVER_CMDLETS: readonly Cmdlet[] = [GET_SERVER, SET_SERVER, GET, NEW, SET, REMOVE, TEST];
