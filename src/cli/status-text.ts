/** The status of replication as people read it; columns as Get-VMReplication has them. */

import type { Status } from '../server/api/contract.ts';
import { bytes, duration, orNothing, time } from './format.ts';
import type { Output, Row } from './output.ts';

export function statusTable(statuses: readonly Status[], output: Output): string {
  return output.table(statuses.map(tableRow), 'No virtual machine is replicated.');
}

export function statusList(status: Status, output: Output, zone: string): string {
  const served = (status.disks ?? []).flatMap(({ path, uri }) =>
    uri === null ? [] : [[`Served ${path}`, uri] as const],
  );
  const written = status.failover ?? status.testFailover ?? null;
  const dropping: Row = [
    ...(written?.writtenBytes === undefined ? [] : [['Written since', `${bytes(written.writtenBytes)}; failover cancel drops it`] as const]),
    ...(status.droppedBytes === undefined ? [] : [['Dropped', `${bytes(status.droppedBytes)} that was written on the failed-over disks`] as const]),
  ];
  const details = status.healthDetails.map((detail, index) => [index === 0 ? 'Health details' : '', detail] as const);
  return output.list([...mainFields(status, zone), ...logFields(status), ...served, ...dropping, ...details]);
}

function tableRow(status: Status): Row {
  return [
    ['VMName', status.vmName],
    ['State', status.state],
    ['Health', status.health],
    ['Mode', status.mode],
    ['FrequencySec', orNothing(status.frequencySec)],
    ['PrimaryServer', orNothing(status.primaryServer)],
    ['ReplicaServer', orNothing(status.replicaServer)],
    ['Relationship', status.relationship],
  ];
}

function mainFields(status: Status, zone: string): Row {
  return [
    ['VM name', status.vmName],
    ['State', status.state],
    ['Health', status.health],
    ['Mode', `${status.mode} (${status.relationship})`],
    ['Frequency', status.frequencySec === null ? orNothing(null) : duration(status.frequencySec)],
    ['Primary server', orNothing(status.primaryServer)],
    ['Replica server', orNothing(status.replicaServer)],
    ['Last replication', time(status.lastReplicationTime, zone)],
    ['Last applied log', time(status.lastAppliedLogTime, zone)],
    ['Pending', bytes(status.pendingBytes)],
    ['Auto resync', autoResync(status)],
    ...(status.exportFolder === undefined ? []
      : [[status.exportFinished === true ? 'Exported, to be imported' : 'Exporting to', status.exportFolder] as const]),
    ...(status.resynchronizeStartTime === null
      ? []
      : [['Resync starts', time(status.resynchronizeStartTime, zone)] as const]),
  ];
}

function logFields({ logBytes, logLimitBytes, secondsToLogLimit, lagSeconds }: Status): Row {
  return [
    ...(typeof lagSeconds === 'number' ? [['Replica lags', duration(lagSeconds)] as const] : []),
    ...(logBytes === undefined || logLimitBytes === undefined
      ? []
      : [['Tracking logs', `${bytes(logBytes)} of at most ${bytes(logLimitBytes)}`] as const]),
    ...(typeof secondsToLogLimit === 'number' ? [['Limit reached in', duration(secondsToLogLimit)] as const] : []),
  ];
}

function autoResync(status: Status): string {
  if (!status.autoResynchronizeEnabled) return 'off';
  const { autoResynchronizeIntervalStart: start, autoResynchronizeIntervalEnd: end } = status;
  return start === '00:00:00' && end === '23:59:59' ? 'on, at any time' : `on, from ${start} to ${end}`;
}
