/** The fields of the health window as rows of a table, for "Save as CSV". */
import type { End } from './live.ts';

type Row = [name: string, value: string | number | null];

export function healthRows({ status, health, cycles }: End): Row[] {
  const { statistics } = health;
  const test = status.testFailover as { startTime: string } | null | undefined;
  const lastTest = test?.startTime ?? (statistics.lastTestFailoverTime as string | null | undefined) ?? null;
  return [
    ['VM name', status.vmName],
    ['Replication state', status.state],
    ['Replication mode', status.mode],
    ['Current primary server', status.primaryServer],
    ['Current replica server', status.replicaServer],
    ['Replication health', health.health],
    ...health.healthDetails.map((text): Row => ['Health detail', text]),
    ['From time', statistics.monitoringStartTime],
    ['To time', statistics.monitoringEndTime],
    ['Average size (bytes)', statistics.averageReplicationBytes],
    ['Maximum size (bytes)', statistics.maximumReplicationBytes],
    ['Average latency (s)', statistics.averageLatencySeconds],
    ['Maximum latency (s)', statistics.maximumLatencySeconds],
    ['Errors encountered', statistics.replicationErrors],
    ['Successful replication cycles', statistics.successfulReplications],
    ['Missed replication cycles', statistics.missedReplications],
    ['Last synchronized at', status.lastReplicationTime],
    ['Data yet to be replicated (bytes)', status.pendingBytes],
    // Of a replica only, as in the original.
    ...(test === undefined ? [] : [['Test failover status', test === null ? 'Not Running' : 'Running'] satisfies Row,
      ['Last test failover initiated at', lastTest] satisfies Row]),
    ...cycles.map(({ time, outcome, bytes, latencySeconds }): Row => [`Cycle ${time}`, `${outcome}; ${bytes} bytes; ${latencySeconds} s`]),
  ];
}

/**
 * RFC 4180. A name may begin with `=`, which a spreadsheet would take for a formula: such a cell gets an apostrophe, as they write
 * text themselves.
 */
export function toCsv(rows: readonly Row[]): string {
  const cell = (value: string | number | null): string => {
    const text = value === null ? '' : String(value);
    const harmless = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
  };
  return [['Field', 'Value'] as Row, ...rows].map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n';
}
