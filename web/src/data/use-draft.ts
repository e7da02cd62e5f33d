/** A form's changes over what the server tells. What was saved counts at once: what the server tells comes up to a second later. */
import { useState } from 'react';

export function useDraft<D extends object>(original: D) {
  const [draft, setDraft] = useState<D | null>(null);
  const [saved, setSaved] = useState(false);
  /** Saved, until the server tells something else than `over`, which it told at that time. */
  const [stored, setStored] = useState<{ draft: D; over: string } | null>(null);
  const told = JSON.stringify(original);
  if (stored !== null && stored.over !== told) setStored(null);
  const base = stored !== null && stored.over === told ? stored.draft : original;
  const shown = draft ?? base;
  return {
    /** What changes are measured against. */
    base,
    shown,
    dirty: draft !== null,
    saved,
    set(part: Partial<D>) {
      setSaved(false);
      setDraft({ ...shown, ...part });
    },
    discard: () => setDraft(null),
    /** After the server has taken `shown`. */
    store() {
      setStored({ draft: shown, over: told });
      setDraft(null);
      setSaved(true);
    },
  };
}
