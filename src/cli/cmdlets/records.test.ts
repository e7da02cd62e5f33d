import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STATUS } from '../../../test/cli/fake-host.ts';
import { replicationRow } from './records.ts';

/** Of Hyper-V's type VMReplication, all of them: scripts select by these names. */
const DOCUMENTED = `AuthenticationType AutoResynchronizeEnabled AutoResynchronizeIntervalEnd AutoResynchronizeIntervalStart BypassProxyServer
  CertificateThumbprint CompressionEnabled EnableWriteOrderPreservationAcrossDisks ExcludedDisks InitialReplicationStartTime RecoveryHistory
  ReplicaServerPort ReplicateHostKvpItems ReplicationFrequencySec ResynchronizeStartTime VSSSnapshotFrequencyHour VSSSnapshotReplicationEnabled
  AllowedPrimaryServer CurrentReplicaServerName LastAppliedLogTime LastReplicationTime PrimaryServerName ReplicaServerName ReplicatedDisks
  ReplicationHealth ReplicationMode ReplicationRelationshipType ReplicationState TestVirtualMachine VMId VMName VMSnapshotId VMSnapshotName CimSession
  ComputerName IsDeleted`.split(/\s+/);

test('a VMReplication has every documented property', () => {
  const { properties } = replicationRow(STATUS);
  assert.deepEqual(DOCUMENTED.filter((name) => !properties.has(name)), []);
  assert.equal(properties.get('ComputerName'), STATUS.primaryServer);
});
