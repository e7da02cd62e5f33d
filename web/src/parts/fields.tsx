/** Controls that more than one form has: what is typed, chosen or ticked goes straight to the form's draft. */
import { useId, type ComponentProps, type ReactNode } from 'react';
import { fingerprintIn, fingerprintWords } from '../data/fingerprint-words.ts';

export function SearchBox({ label, value, onChange }: { label: string; value: string; onChange: (text: string) => void }) {
  return <input type="search" aria-label={label} placeholder={label} value={value} onChange={(event) => onChange(event.target.value)} />;
}

interface FilterProps {
  label: string;
  /** Shown while nothing is chosen. */
  every: string;
  value: string;
  options: readonly (string | readonly [value: string, label: string])[];
  onChange: (value: string) => void;
}

/** A choice among values, or none. */
export function FilterBox({ label, every, value, options, onChange }: FilterProps) {
  return (
    <select aria-label={label} value={value} onChange={(event) => onChange(event.target.value)}>
      <option value="">{every}</option>
      {options.map((option) => {
        const [each, words] = typeof option === 'string' ? [option, option] : option;
        return (
          <option key={each} value={each}>
            {words}
          </option>
        );
      })}
    </select>
  );
}

interface TickProps {
  checked: boolean;
  onChange: (checked: boolean) => void;
  hint?: string;
  full?: true;
  children: ReactNode;
}

export function Tick({ checked, onChange, hint, full, children }: TickProps) {
  return (
    <label className={`choice${full === true ? ' full' : ''}`}>
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.target.checked)} />
      <span>
        {children}
        {hint === undefined ? null : <small>{hint}</small>}
      </span>
    </label>
  );
}

export function CompressionTick({ checked, onChange }: Pick<TickProps, 'checked' | 'onChange'>) {
  return (
    <Tick full checked={checked} onChange={onChange} hint="Skipped by itself where it does not help.">
      Compress what is sent
    </Tick>
  );
}

interface TextProps extends Omit<ComponentProps<'input'>, 'value' | 'onChange'> {
  label: string;
  value: string;
  onChange: (text: string) => void;
  full?: true;
  /** Below the control. */
  hint?: ReactNode;
}

export function TextField({ label, value, onChange, full, hint, ...input }: TextProps) {
  return (
    <label className={full === true ? 'full' : undefined}>
      {label}
      <input value={value} onChange={(event) => onChange(event.target.value)} {...input} />
      {hint === undefined ? null : typeof hint === 'string' ? <small>{hint}</small> : hint}
    </label>
  );
}

/** `known`: proposed while it is typed. */
export function ReplicaField({ value, onChange, hint, known = [] }: Pick<TextProps, 'value' | 'onChange' | 'hint'> & { known?: readonly string[] }) {
  const list = useId();
  return (
    <>
      <TextField
        label="Replica server and port"
        required
        value={value}
        onChange={onChange}
        hint={hint}
        {...(known.length === 0 ? {} : { list })}
        pattern="(\[[^\]]+\]|[^:\/\s]+):\d{1,5}"
        placeholder="munich:7743"
        spellCheck={false}
        title="HOST:PORT"
      />
      {known.length === 0 ? null : (
        <datalist id={list}>
          {known.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
    </>
  );
}

/** `hint`: where to find it. Once it is whole, its words stand there, to be compared with the other screen. */
export function FingerprintField({ label, value, onChange, hint, says = '' }: Pick<TextProps, 'label' | 'value' | 'onChange'> & { hint: string; says?: string }) {
  const fingerprint = fingerprintIn(value);
  return (
    <TextField
      full
      label={label}
      required
      spellCheck={false}
      maxLength={300}
      placeholder="8E:82:…"
      value={value}
      onChange={(text) => onChange(fingerprintIn(text) ?? text)}
      hint={fingerprint === null ? hint : <small className="words">{says}{fingerprintWords(fingerprint)}</small>}
    />
  );
}
