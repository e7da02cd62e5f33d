/** Small pictures of one number each: lag, log size, churn. Their text says the same. */
import { bytes, duration, frequency, percent, when } from '../data/format.ts';
import type { LiveVm } from '../data/live.ts';
import { useNowValue } from '../data/use-now.ts';

/** Age of what the replica could serve, against the frequency. */
export function Lag({ since, frequencySec }: { since: string | null; frequencySec: number | null }) {
  const seconds = useNowValue((now) => (since === null ? null : wholeSteps(Math.max(0, (now - Date.parse(since)) / 1000))));
  if (since === null || seconds === null || frequencySec === null) return <span className="none">–</span>;
  const level = seconds > 3600 ? 'critical' : seconds > 2 * frequencySec + 5 ? 'warning' : 'normal';
  return (
    <span className="gauge" title={`The replica shows ${when(since)}`}>
      <Bar share={percent(seconds, 2 * frequencySec)} level={level} />
      <span>
        {duration(seconds)} <small>of {frequency(frequencySec)}</small>
      </span>
    </span>
  );
}

/** Tracking logs against the line at which a resynchronization becomes required. */
export function LogGauge({ logBytes, logLimitBytes, logLimitTime }: Pick<LiveVm, 'logBytes' | 'logLimitBytes' | 'logLimitTime'>) {
  const left = useNowValue((now) => (logLimitTime === null ? null : wholeSteps((Date.parse(logLimitTime) - now) / 1000)));
  if (logBytes === null || logLimitBytes === null || logLimitBytes === 0) return <span className="none">–</span>;
  const share = percent(logBytes, logLimitBytes);
  const soon = (seconds: number) => left !== null && left < seconds;
  const level = share >= 80 || soon(300) ? 'critical' : share >= 40 || soon(3600) ? 'warning' : 'normal';
  const forecast = left === null || (share < 1 && left > 3600) ? '' : left <= 0 ? 'limit reached' : `limit in ${duration(left)}`;
  return (
    <span className="gauge" title={`${bytes(logBytes)} of tracking logs; at ${bytes(logLimitBytes)} a resynchronization is required`}>
      <Bar share={share} level={level} />
      <span>
        {bytes(logBytes)}{' '}
        <small>
          of {bytes(logLimitBytes)}
          {forecast === '' ? '' : ` · ${forecast}`}
        </small>
      </span>
    </span>
  );
}

/** As fine as `duration` shows it. */
const wholeSteps = (seconds: number): number => (seconds < 120 ? Math.round(seconds) : Math.round(seconds / 60) * 60);

export function Bar({ share, level }: { share: number; level: 'normal' | 'warning' | 'critical' }) {
  return (
    <svg className={`meter ${level}`} viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
      <rect className="track" width="100" height="6" rx="3" />
      <rect className="fill" width={Math.max(share > 0 ? 2 : 0, Math.min(100, share))} height="6" rx="3" />
    </svg>
  );
}

/** Bytes of the last cycles. */
export function Sparkline({ values }: { values: readonly number[] }) {
  if (values.length < 2) return <span className="none">–</span>;
  const most = Math.max(...values, 1);
  const step = 96 / (values.length - 1);
  const points = values.map((value, at) => `${(2 + at * step).toFixed(1)},${(22 - (value / most) * 20).toFixed(1)}`).join(' ');
  const last = values.at(-1)!;
  return (
    <span className="spark">
      <svg
        viewBox="0 0 100 24"
        role="img"
        aria-label={`Churn of the last ${values.length} cycles: at most ${bytes(most)}, last ${bytes(last)}`}
      >
        <polyline points={points} />
      </svg>
      <small>{bytes(last)}</small>
    </span>
  );
}
