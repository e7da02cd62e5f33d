/** What the server refused, why, and what to do: its own words. */
import type { Refusal } from '../data/call.ts';
import { localTimes } from '../data/format.ts';

export function Refused({ refusal }: { refusal: Refusal | null }) {
  if (refusal === null) return null;
  return (
    <div className="refused" role="alert">
      <strong>{refusal.code}</strong>
      <p>{localTimes(refusal.message)}</p>
      <p className="remedy">→ {localTimes(refusal.remedy)}</p>
    </div>
  );
}
