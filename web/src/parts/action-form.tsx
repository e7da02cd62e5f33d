/** A form with one button: its fields, what the server refused, and the button that carries it out. */
import type { ReactNode } from 'react';
import type { ActionState } from '../data/use-action.ts';
import { Refused } from './refused.tsx';

interface Props {
  action: ActionState;
  submit: () => Promise<unknown>;
  /** On the button. */
  label: string;
  className?: string;
  children: ReactNode;
}

export function ActionForm({ action, submit, label, className = '', children }: Props) {
  return (
    <form
      className={`grid-form ${className}`}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      {children}
      <Refused refusal={action.refusal} />
      <p className="actions full">
        <button type="submit" className="primary" disabled={action.running}>
          {label}
        </button>
      </p>
    </form>
  );
}
