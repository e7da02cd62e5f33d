/**
 * Each documented cmdlet with each of its documented parameters: there, found by its name, aliases and unique prefixes in any case and
 * behind any dash, and run once against a host. What has no function here says so instead of doing nothing.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run, startFakeHost, STATUS } from '../../../test/cli/fake-host.ts';
import { bind, COMMON_PARAMETERS, type Parameter } from './parameters.ts';
import { authorizationRow, healthRow, replicationRow, serverRow, type Row } from './records.ts';
import { CMDLETS } from './run-cmdlet.ts';
import { readStages } from './words.ts';

const RELATIONSHIP = 'ReplicationRelationshipType/Relationship/RRT';
const VM = 'VMName VM VMReplication';
const SETTINGS = 'AuthenticationType/AuthType CertificateThumbprint/Thumbprint/Cert CompressionEnabled ReplicateHostKvpItems BypassProxyServer ' +
  'EnableWriteOrderPreservationAcrossDisks VSSSnapshotFrequencyHour/VSSFreq RecoveryHistory/RecHist ReplicationFrequencySec/RepFreq ' +
  'AutoResynchronizeEnabled/AutoResync AutoResynchronizeIntervalStart/AutoResyncStart AutoResynchronizeIntervalEnd/AutoResyncEnd ' +
  'ReplicaServerName/ReplicaServer ReplicaServerPort/ReplicaPort AsReplica AllowedPrimaryServer/AllowedPS AsJob Passthru';
const FILTERS = `${VM} ReplicaServerName PrimaryServerName ReplicationState ReplicationHealth ReplicationMode ${RELATIONSHIP} TrustGroup`;
const FINGERPRINT = 'ab'.repeat(32);

/** Cmdlet; its documented parameters with their aliases; a line that runs it; the operation that the line ends in. */
const DOCUMENTED: [cmdlet: string, parameters: string, line: string, operation: string][] = [
  ['Enable-VMReplication', `${VM} ${SETTINGS} ExcludedVhd ExcludedVhdPath`, `web1 munich 7743 Certificate -Cert ${FINGERPRINT} -RepFreq 30`, 'enable'],
  ['Set-VMReplication', `${VM} ${SETTINGS} InitialReplicationStartTime/IRTime DisableVSSSnapshotReplication/DisableVSS ReplicatedDisks ` +
    'ReplicatedDiskPaths Reverse UseBackup', 'web1 -AutoResync 1', 'set'],
  ['Get-VMReplication', FILTERS, 'web1', 'status'],
  ['Measure-VMReplication', FILTERS, 'web1', 'health'],
  ['Suspend-VMReplication', `${VM} ${RELATIONSHIP}`, 'web1', 'suspend'],
  ['Resume-VMReplication', `${VM} ${RELATIONSHIP} Resynchronize/Resync ResynchronizeStartTime/ResyncStart Continue AsJob`, 'web1 -Resync', 'resume'],
  ['Stop-VMReplication', `${VM} ${RELATIONSHIP}`, 'web1', 'cancel-resync'],
  ['Remove-VMReplication', `${VM} ${RELATIONSHIP}`, 'web1', 'remove'],
  ['Start-VMInitialReplication', `${VM} DestinationPath/IRLoc InitialReplicationStartTime/IRTime UseBackup AsJob`, 'web1', 'start'],
  ['Stop-VMInitialReplication', VM, 'web1', 'stop-initial'],
  ['Import-VMInitialReplication', `${VM} Path`, 'web1 /media', 'import'],
  ['Start-VMFailover', `${VM} Prepare AsTest VMRecoverySnapshot/VMRecoveryCheckpoint AsJob`, 'web1 -AsTest', 'failover'],
  ['Stop-VMFailover', `${VM} AsJob`, 'web1', 'failover.cancel'],
  ['Complete-VMFailover', VM, 'web1', 'failover.complete'],
  ['Test-VMReplicationConnection', 'ReplicaServerName ReplicaServerPort AuthenticationType CertificateThumbprint BypassProxyServer',
    `munich 7743 Certificate ${FINGERPRINT}`, 'test-connection'],
  ['Reset-VMReplicationStatistics', `${VM} ${RELATIONSHIP}`, 'web1', 'reset-statistics'],
  ['Get-VMReplicationServer', '', '', 'fingerprint'],
  ['Set-VMReplicationServer', 'ReplicationEnabled/RepEnabled AllowedAuthenticationType ReplicationAllowedFromAnyServer/AllowAnyServer CertificateThumbprint ' +
    'DefaultStorageLocation/StorageLoc KerberosAuthenticationPort/KerbAuthPort KerberosAuthenticationPortMapping ' +
    'CertificateAuthenticationPort/CertAuthPort CertificateAuthenticationPortMapping MonitoringInterval MonitoringStartTime Force',
    '-AllowAnyServer 1 -StorageLoc /srv/replicas', 'authorize'],
  ['New-VMReplicationAuthorizationEntry', 'AllowedPrimaryServer/AllowedPS ReplicaStorageLocation/StorageLoc TrustGroup', `${FINGERPRINT} /srv g`, 'authorize'],
  ['Set-VMReplicationAuthorizationEntry', 'AllowedPrimaryServer ReplicaStorageLocation TrustGroup', 'berlin /srv', 'authorize'],
  ['Get-VMReplicationAuthorizationEntry', 'AllowedPrimaryServer ReplicaStorageLocation TrustGroup', '', 'authorizations'],
  ['Remove-VMReplicationAuthorizationEntry', 'AllowedPrimaryServer TrustGroup', 'berlin', 'unauthorize'],
  ['Get-VMNetworkAdapterFailoverConfiguration', `${VM} VMNetworkAdapterName`, 'web1', 'vm.list'],
  ['Set-VMNetworkAdapterFailoverConfiguration', `${VM} VMNetworkAdapterName ` + ['IPv4', 'IPv6'].map((family) =>
    `${family}Address ${family}DefaultGateway ${family}PreferredDNSServer ${family}AlternateDNSServer ClearFailover${family}Settings`).join(' ') +
    ' IPv4SubnetMask IPv6SubnetPrefixLength', 'web1 -Card eth0 -IPv4Address 10.0.0.5 -IPv4SubnetMask 255.255.255.0', 'set'],
  // Not of the module Hyper-V Replica, and needed to choose a point.
  ['Get-VMSnapshot', 'VMName SnapshotType', 'web1', 'points'],
];

const moment = { now: Date.parse('2031-05-04T10:00:00Z'), zone: 'UTC' };
const namesOf = ({ name, aliases = [] }: Parameter): string[] => [name, ...aliases];

/** What a parameter is bound as, or the code of the refusal and what it says. */
function resolve(cmdlet: string, parameters: readonly Parameter[], given: string): { name?: string; code?: string; message?: string } {
  const [stage] = readStages([`X ${given}`]);
  try {
    // No value: what is asked is only which parameter is meant. All are as switches here.
    const flags = parameters.map(({ name, aliases = [] }) => ({ name, aliases, type: 'switch' as const }));
    return { name: [...bind(cmdlet, flags, stage!.slice(1), moment).keys()][0]! };
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message };
  }
}

test('the documented cmdlets are there, and no other but Get-VMSnapshot', () => {
  assert.deepEqual(CMDLETS.map(({ name }) => name).sort(), DOCUMENTED.map(([name]) => name).sort());
});

for (const [cmdlet, documented] of DOCUMENTED) {
  const { parameters } = CMDLETS.find(({ name }) => name === cmdlet)!;

  test(`${cmdlet}: documented parameters and aliases are known`, () => {
    const known = [...parameters, ...COMMON_PARAMETERS].flatMap(namesOf);
    assert.deepEqual(documented.split(/[\s/]+/).filter((name) => name !== '' && !known.includes(name)), []);
    assert.deepEqual(new Set(known.map((name) => name.toLowerCase())).size, known.length, 'a name means two parameters');
  });

  test(`${cmdlet}: each prefix means the one parameter that it fits, else the candidates are told`, () => {
    const all = [...parameters, ...COMMON_PARAMETERS];
    for (const name of all.flatMap(namesOf)) {
      for (let length = 1; length <= name.length; length++) {
        const prefix = name.slice(0, length).toLowerCase();
        const exact = all.find((each) => namesOf(each).some((one) => one.toLowerCase() === prefix));
        const fitting = all.filter((each) => namesOf(each).some((one) => one.toLowerCase().startsWith(prefix)));
        const found = resolve(cmdlet, parameters, `–${prefix}`);
        const meant = exact ?? (fitting.length === 1 ? fitting[0] : undefined);
        if (meant === undefined) {
          assert.equal(found.code, 'PARAMETER_AMBIGUOUS', `-${prefix}`);
          for (const each of fitting) {
            assert.ok(namesOf(each).some((one) => new RegExp(`-${one}(,|$)`).test(found.message!)), `-${prefix}: ${found.message}`);
          }
        } else if (COMMON_PARAMETERS.includes(meant)) {
          assert.notEqual(found.code, 'PARAMETER_UNKNOWN', `-${prefix}`);
        } else assert.equal(found.name, meant.name, `-${prefix}`);
      }
    }
    const unknown = resolve(cmdlet, parameters, '-NoSuchThing');
    assert.equal(unknown.code, 'PARAMETER_UNKNOWN');
  });
}

test('each cmdlet runs against a host, in small letters, behind any dash and in typographic quotes, and as one argument with a pipe', async () => {
  const entry = { fingerprint: FINGERPRINT, name: 'berlin', storage: null, trustGroup: 'default' };
  await using host = await startFakeHost({ authorizations: () => Promise.resolve([entry]) });
  for (const [index, [cmdlet, , line, operation]] of DOCUMENTED.entries()) {
    const dash = '\u2010\u2011\u2012\u2013\u2014\u2015\u2212-'[index % 8]!;
    const quoted = line.replace('web1', ['“web1”', '‘web1’', '„web1‟', '‚web1‛', '"web1"'][index % 5]!);
    const typed = `${cmdlet.toLowerCase()} ${quoted}`.replaceAll(/(?<=^\w+|\s)-(?=[a-z])/gi, dash);
    for (const words of [[cmdlet, ...line.split(' ').filter((word) => word !== '')], [`${typed} | fl *`]]) {
      host.asked.length = 0;
      const { code, stderr } = await run(words, { dataFolder: host.dataFolder });
      assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
      assert.ok(host.asked.some(({ name }) => name === operation), `${words.join(' ')} asks ${host.asked.map(({ name }) => name).join()}`);
    }
  }
  assert.deepEqual(host.defects, []);
});

test('objects have their documented properties, and show their default columns', () => {
  const health = { vmName: 'web1', health: 'Normal' as const, state: 'Replicating' as const, healthDetails: [], statistics: {
    monitoringStartTime: null, monitoringEndTime: null, averageReplicationBytes: 0, maximumReplicationBytes: 0, averageLatencySeconds: null,
    maximumLatencySeconds: null, replicationErrors: 0, successfulReplications: 0, missedReplications: 0, pendingBytes: 0 } };
  const entry = { fingerprint: FINGERPRINT, name: 'berlin', storage: '/srv', trustGroup: 'g' };
  const common = 'AllowedPrimaryServer CurrentReplicaServerName LastAppliedLogTime LastReplicationTime PrimaryServerName ReplicaServerName ReplicatedDisks ' +
    'ReplicationHealth ReplicationMode ReplicationRelationshipType ReplicationState TestVirtualMachine VMId VMName VMSnapshotId VMSnapshotName CimSession ' +
    'ComputerName IsDeleted';
  const expected: [row: Row, properties: string, columns: string][] = [
    [replicationRow(STATUS), common, 'VMName State Health Mode FrequencySec PrimaryServer ReplicaServer ReplicaPort AuthType Relationship'],
    [healthRow(STATUS, health), `CurrentTask MonitoringStartTime MonitoringEndTime LastReplicationType FailedOverReplicationType ` +
      'LastTestFailoverInitiatedTime LastVSSSnapshotTime InitialReplicationSize PendingReplicationSize AverageReplicationSize MaximumReplicationSize ' +
      'AverageReplicationLatency MaximumReplicationLatency ReplicationErrors SuccessfulReplicationCount MissedReplicationCount ReplicationHealthDetails ' +
      common, 'VMName State Health LReplTime PReplSize(M) AvgLatency AvgReplSize(M) Relationship'],
    [authorizationRow(entry), 'AllowedPrimaryServer ReplicaStorageLocation TrustGroup', 'AllowedPS StorageLoc TrustGroup'],
    [serverRow({ fingerprint: FINGERPRINT, name: 'berlin' }, [entry]), 'AllowedAuthenticationType AuthorizationEntries CertificateAuthenticationPort ' +
      'CertificateAuthenticationPortMapping CertificateThumbprint DefaultStorageLocation KerberosAuthenticationPort KerberosAuthenticationPortMapping ' +
      'MonitoringInterval MonitoringStartTime OperationalStatus ReplicationAllowedFromAnyServer ReplicationEnabled StatusDescriptions',
    'RepEnabled AuthType AllowAnyServer CertificateThumbprint'],
  ];
  for (const [{ type, properties }, names, columns] of expected) {
    assert.deepEqual(names.split(' ').filter((name) => !properties.has(name)), [], type!.name);
    assert.deepEqual(type!.columns.map(({ label }) => label), columns.split(' '));
  }
});
