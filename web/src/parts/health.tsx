/** Health as sign and word: never by colour alone. */
import type { LiveVm } from '../data/live.ts';

const SIGNS = { Normal: '✓', Warning: '!', Critical: '✕', NotApplicable: '–' } as const;

export function HealthMark({ health }: { health: LiveVm['health'] }) {
  const word = health === 'NotApplicable' ? 'Not replicated' : health;
  return (
    <span className={`health ${health.toLowerCase()}`}>
      <span aria-hidden="true" className="sign">
        {SIGNS[health]}
      </span>
      {word}
    </span>
  );
}
