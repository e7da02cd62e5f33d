/**
 * The list of VMs. Rows that nobody can see are not there: hundreds of VMs change all the time, and every row on the page costs the browser
 * layout and a clock. Rows stand in blocks; a block that is far from what is seen is one empty row of its height.
 */
import { memo, useEffect, useRef, useState, type RefObject } from 'react';
import { peerOf } from '../data/attention.ts';
import { bytes, count } from '../data/format.ts';
import type { LiveVm } from '../data/live.ts';
import { hrefOf } from '../data/route.ts';
import { Lag, LogGauge, Sparkline } from './gauges.tsx';
import { HealthMark } from './health.tsx';

const COLUMNS = ['Name', 'State', 'Health', 'Mode', 'Peer', 'Lag', 'Tracking logs', 'Churn'];
/** Few, so that what comes into view on scrolling is drawn in a moment. */
const BLOCK_ROWS = 8;
/** Until a block has been seen once. */
const ROW_PX = 61;

export const VmTable = memo(function VmTable({ rows, total }: { rows: LiveVm[]; total: number }) {
  const blocks = Array.from({ length: Math.ceil(rows.length / BLOCK_ROWS) }, (_, at) => rows.slice(at * BLOCK_ROWS, (at + 1) * BLOCK_ROWS));
  return (
    <div className="table-frame" tabIndex={0} role="region" aria-label="Virtual machines">
      <table className="vms" aria-rowcount={rows.length + 1}>
        <thead>
          <tr aria-rowindex={1}>
            {COLUMNS.map((column) => (
              <th key={column}>{column}</th>
            ))}
          </tr>
        </thead>
        {blocks.map((block, at) => (
          <Block key={at} rows={block} first={at * BLOCK_ROWS} />
        ))}
      </table>
      {rows.length === 0 ? <p className="hint">None of the {count(total, 'VM')} matches.</p> : null}
    </div>
  );
});

function Block({ rows, first }: { rows: LiveVm[]; first: number }) {
  const { ref, near, height } = useNear<HTMLTableSectionElement>(first === 0);
  return (
    <tbody ref={ref}>
      {near ? (
        rows.map((vm, at) => <VmRow key={vm.vmId} vm={vm} index={first + at + 2} />)
      ) : (
        <tr className="unseen" aria-hidden="true">
          <td colSpan={COLUMNS.length} style={{ height: height || rows.length * ROW_PX }} />
        </tr>
      )}
    </tbody>
  );
}

/** Whether the element is on the screen, or at most a screen away; `height`: what it measured when it was last, 0 = never. */
function useNear<E extends HTMLElement>(initially: boolean): { ref: RefObject<E | null>; near: boolean; height: number } {
  const ref = useRef<E>(null);
  const [seen, setSeen] = useState({ near: initially, height: 0 });
  useEffect(() => {
    const observer = new IntersectionObserver(
      (entries) => {
        const { isIntersecting: near, boundingClientRect } = entries.at(-1)!;
        setSeen((before) => (before.near === near ? before : { near, height: before.near ? boundingClientRect.height : before.height }));
      },
      { rootMargin: '100% 0px' },
    );
    observer.observe(ref.current!);
    return () => observer.disconnect();
  }, []);
  return { ref, ...seen };
}

const VmRow = memo(function VmRow({ vm, index }: { vm: LiveVm; index: number }) {
  const { extended } = vm;
  return (
    <tr aria-rowindex={index}>
      <th scope="row">
        <a href={hrefOf({ page: 'vm', vm: vm.vmName, tab: 'health' })}>{vm.vmName}</a>
        <small>
          {count(vm.diskCount, 'disk')}, {bytes(vm.totalBytes)}
        </small>
      </th>
      <td data-label="State">
        {vm.stateText}
        {vm.percent === null ? '' : ` ${Math.floor(vm.percent)} %`}
      </td>
      <td data-label="Health">
        <HealthMark health={vm.health} />
      </td>
      <td data-label="Mode">{vm.mode === 'None' ? '–' : vm.mode}</td>
      <td data-label="Peer">
        {peerOf(vm) ?? '–'}
        {extended === null ? null : (
          <small>
            → {extended.replicaServer}: {extended.health}
          </small>
        )}
      </td>
      <td data-label="Lag">
        <Lag since={vm.lastAppliedLogTime} frequencySec={vm.frequencySec} />
      </td>
      <td data-label="Tracking logs">
        <LogGauge logBytes={vm.logBytes} logLimitBytes={vm.logLimitBytes} logLimitTime={vm.logLimitTime} />
      </td>
      <td data-label="Churn">
        <Sparkline values={vm.churn} />
      </td>
    </tr>
  );
});
