/** A form over a draft: its fields, what the server refused, and the buttons that save or drop the changes. */
import type { ReactNode } from 'react';
import { useAction } from '../data/use-action.ts';
import type { useDraft } from '../data/use-draft.ts';
import { Refused } from './refused.tsx';

export const SAVE_WORDS = { save: 'Save', drop: 'Discard', saved: 'Saved.', pending: 'Not saved yet.' } as const;
export const APPLY_WORDS = { save: 'Apply on this host', drop: 'Undo', saved: 'Applied.', pending: 'Not applied yet.' } as const;

interface Props {
  form: Pick<ReturnType<typeof useDraft>, 'dirty' | 'saved' | 'discard' | 'store'>;
  /** Names the form. */
  label: string;
  locked: boolean;
  /** Whether there is something to save. */
  changed: boolean;
  save: () => Promise<unknown>;
  words: typeof SAVE_WORDS | typeof APPLY_WORDS;
  children: ReactNode;
}

export function DraftForm({ form, label, locked, changed, save, words, children }: Props) {
  const action = useAction();
  const submit = async () => {
    if (changed && (await action.run(save))) form.store();
  };
  return (
    <form
      className="settings"
      aria-label={label}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <fieldset disabled={locked} className="plain">
        {children}
      </fieldset>
      <div className="save-bar">
        <Refused refusal={action.refusal} />
        <p className="actions">
          <button type="submit" className="primary" disabled={locked || !changed || action.running}>
            {words.save}
          </button>
          <button type="button" disabled={!form.dirty} onClick={form.discard}>
            {words.drop}
          </button>
          <span role="status" className="hint">
            {form.saved ? words.saved : changed ? words.pending : ''}
          </span>
        </p>
      </div>
    </form>
  );
}
