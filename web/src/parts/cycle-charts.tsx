/** Size, latency and outcome of the last cycles, one bar each; missed ones stand out by form as well as by colour. */
import type { PastCycle } from '../../../src/server/api/contract.ts';
import { bytes, count, duration, when } from '../data/format.ts';

const HEIGHT = 88;
const SHOWN = 90;
/** Width of one cycle. */
const BAR = 6;
export const OUTCOME_WORDS = { success: 'delivered', late: 'delivered late', missed: 'missed', 'failed-attempt': 'failed, tried again' } as const;

export function CycleCharts({ cycles }: { cycles: readonly PastCycle[] }) {
  const shown = cycles.slice(-SHOWN);
  if (shown.length === 0) return <p className="hint">No cycle yet.</p>;
  const missed = shown.filter(({ outcome }) => outcome === 'missed').length;
  const failed = shown.filter(({ outcome }) => outcome === 'failed-attempt').length;
  return (
    <>
      <p className="hint">
        {count(shown.length, 'cycle')} since {when(shown[0]!.time)}: {missed === 0 ? 'none missed' : `${missed} missed`}
        {failed === 0 ? '' : `, ${count(failed, 'attempt')} failed`}.
      </p>
      <div className="columns charts">
        <Chart title="Size of each cycle" cycles={shown} value={(cycle) => cycle.bytes} words={bytes} />
        <Chart title="Latency of each cycle" cycles={shown} value={(cycle) => cycle.latencySeconds} words={duration} />
        <Missed cycles={shown} missed={missed} />
      </div>
      <details>
        <summary>As a table</summary>
        <div className="table-frame" tabIndex={0} role="region" aria-label="Last cycles">
          <table>
            <thead>
              <tr>
                <th>Time</th>
                <th>Outcome</th>
                <th className="number">Size</th>
                <th className="number">Latency</th>
              </tr>
            </thead>
            <tbody>
              {shown.toReversed().map((cycle, at) => (
                <tr key={at}>
                  <td>{when(cycle.time)}</td>
                  <td>{OUTCOME_WORDS[cycle.outcome]}</td>
                  <td className="number">{bytes(cycle.bytes)}</td>
                  <td className="number">{duration(cycle.latencySeconds)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </>
  );
}

/** How high the mark of a cycle is, out of HEIGHT: what is missing stands out by form too. */
const MARKS: Record<PastCycle['outcome'], number> = { 'success': 12, 'late': 36, 'failed-attempt': 60, 'missed': HEIGHT };

/** What became of each cycle. */
function Missed({ cycles, missed }: { cycles: readonly PastCycle[]; missed: number }) {
  const late = cycles.filter(({ outcome }) => outcome === 'late').length;
  const bars = cycles.map(({ time, outcome }) => ({ outcome, high: MARKS[outcome], wide: BAR - 2, says: `${when(time)}: ${OUTCOME_WORDS[outcome]}` }));
  return (
    <Bars
      title="Missed cycles"
      says={`${missed} of ${cycles.length}${late === 0 ? '' : `, ${late} late`}`}
      label={`Missed cycles: ${missed} of ${cycles.length}, ${late} delivered late`}
      bars={bars}
    />
  );
}

interface ChartProps {
  title: string;
  cycles: readonly PastCycle[];
  value: (cycle: PastCycle) => number;
  words: (value: number) => string;
}

function Chart({ title, cycles, value, words }: ChartProps) {
  const most = Math.max(...cycles.map(value), 0);
  const bars = cycles.map((cycle) => {
    const { outcome, time } = cycle;
    const isGap = outcome === 'missed' || outcome === 'failed-attempt';
    const high = isGap ? HEIGHT : Math.max(2, most === 0 ? 0 : (value(cycle) / most) * (HEIGHT - 6));
    return { outcome, high, wide: isGap ? 2 : BAR - 2, says: `${when(time)}: ${OUTCOME_WORDS[outcome]}, ${words(value(cycle))}` };
  });
  return (
    <Bars
      title={title}
      says={`at most ${words(most)}`}
      label={`${title}: at most ${words(most)}, last ${words(value(cycles.at(-1)!))}`}
      bars={bars}
    />
  );
}

interface BarsProps {
  title: string;
  /** Beside the title. */
  says: string;
  /** The whole in words. */
  label: string;
  bars: { outcome: PastCycle['outcome']; high: number; wide: number; says: string }[];
}

/** The newest on the right edge. */
function Bars({ title, says, label, bars }: BarsProps) {
  return (
    <figure>
      <figcaption>
        {title}
        <small>{says}</small>
      </figcaption>
      <svg className="chart" viewBox={`0 0 ${SHOWN * BAR} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        <line x1="0" x2={SHOWN * BAR} y1={HEIGHT - 0.5} y2={HEIGHT - 0.5} />
        {bars.map((bar, at) => (
          <rect key={at} className={bar.outcome} x={(SHOWN - bars.length + at) * BAR + 1} width={bar.wide} y={HEIGHT - bar.high} height={bar.high}>
            <title>{bar.says}</title>
          </rect>
        ))}
      </svg>
    </figure>
  );
}
