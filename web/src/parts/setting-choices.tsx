/** Choices that the settings page and the wizard share. */
import { useId } from 'react';
import { bytes, frequency } from '../data/format.ts';
import { type Draft, type ResyncMode } from '../data/settings-draft.ts';
import { Tick } from './fields.tsx';

interface Props {
  draft: Draft;
  onChange: (part: Partial<Draft>) => void;
}

type Frequency = Draft['frequencySec'];
const FREQUENCIES: readonly Frequency[] = [30, 300, 900];

/** A third host is fed every 5 or 15 minutes, and never more often than the replica that feeds it. */
export function legFrequencies(replicaSec: number | null): Frequency[] {
  return FREQUENCIES.filter((seconds) => seconds >= Math.max(300, replicaSec ?? 0));
}

export function FrequencyChoice({ draft, onChange, choices = FREQUENCIES }: Props & { choices?: readonly Frequency[] }) {
  const name = useId();
  return (
    <fieldset>
      <legend className="hint">How often changes are sent: at most about so much is lost when the primary is.</legend>
      {choices.map((seconds) => (
        <label key={seconds} className="choice">
          <input type="radio" name={name} checked={draft.frequencySec === seconds} onChange={() => onChange({ frequencySec: seconds })} />
          <span>Every {frequency(seconds)}</span>
        </label>
      ))}
    </fieldset>
  );
}

export function DiskChoice({
  disks,
  draft,
  onChange,
}: Props & { disks: readonly { path: string; virtualSize: number; format: string }[] }) {
  const toggle = (path: string, on: boolean) =>
    onChange({ excludedDisks: on ? draft.excludedDisks.filter((each) => each !== path) : [...draft.excludedDisks, path] });
  return (
    <fieldset>
      <legend className="hidden">Which disks are replicated</legend>
      {disks.map(({ path, virtualSize, format }) => (
        <label key={path} className="choice">
          <input type="checkbox" checked={!draft.excludedDisks.includes(path)} onChange={(event) => toggle(path, event.target.checked)} />
          <span className="path">
            {path}
            <small>
              {format}, {bytes(virtualSize)}
            </small>
          </span>
        </label>
      ))}
    </fieldset>
  );
}

/** `standardOnly`: of an extended replica, where no guest is brought to rest. */
export function PointsChoice({ draft, onChange, standardOnly = false }: Props & { standardOnly?: boolean }) {
  const name = useId();
  const additional = draft.recoveryHistory > 0;
  return (
    <fieldset>
      <legend className="hidden">How many points</legend>
      <label className="choice">
        <input
          type="radio"
          name={name}
          checked={!additional}
          onChange={() => onChange({ recoveryHistory: 0, applicationConsistentHours: 0 })}
        />
        <span>
          Only the latest point for recovery<small>Takes no further space on the replica.</small>
        </span>
      </label>
      <label className="choice">
        <input type="radio" name={name} checked={additional} onChange={() => onChange({ recoveryHistory: 24 })} />
        <span>
          Additional recovery points<small>One each hour; they take as much space as the guest writes.</small>
        </span>
      </label>
      {additional ? (
        <div className="grid-form indent">
          <label>
            How many hours back
            <input
              type="number"
              min={1}
              max={24}
              value={draft.recoveryHistory}
              onChange={(event) => onChange({ recoveryHistory: Number(event.target.value) })}
            />
          </label>
          {standardOnly ? null : (
            <label>
              Application-consistent every, hours
              <input
                type="number"
                min={0}
                max={12}
                value={draft.applicationConsistentHours}
                onChange={(event) => onChange({ applicationConsistentHours: Number(event.target.value) })}
              />
              <small>0 is never; the guest's agent freezes its file systems.</small>
            </label>
          )}
          <Tick
            full
            checked={draft.keepRecoveryPoints}
            onChange={(keepRecoveryPoints) => onChange({ keepRecoveryPoints })}
            hint="Where its cause allows it."
          >
            Keep them over a resynchronization
          </Tick>
        </div>
      ) : null}
    </fieldset>
  );
}

const MODES: [ResyncMode, string][] = [
  ['manual', 'Manually'],
  ['always', 'Automatically start resynchronization'],
  ['hours', 'Automatically start resynchronization only during the following hours:'],
];

export function ResyncChoice({ draft, onChange }: Props) {
  const name = useId();
  return (
    <fieldset>
      <legend className="hidden">When a resynchronization starts</legend>
      {MODES.map(([mode, label]) => (
        <label key={mode} className="choice">
          <input type="radio" name={name} checked={draft.resync === mode} onChange={() => onChange({ resync: mode })} />
          <span>{label}</span>
        </label>
      ))}
      <div className="grid-form indent">
        <label>
          From
          <input
            type="time"
            required
            disabled={draft.resync !== 'hours'}
            value={draft.from}
            onChange={(event) => onChange({ from: event.target.value })}
          />
        </label>
        <label>
          To
          <input
            type="time"
            required
            disabled={draft.resync !== 'hours'}
            value={draft.to}
            onChange={(event) => onChange({ to: event.target.value })}
          />
        </label>
      </div>
      <p className="hint">Local time of the host. The hours govern the start; a run goes on beyond their end.</p>
    </fieldset>
  );
}
