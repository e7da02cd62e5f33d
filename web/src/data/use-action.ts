/** One thing a person asks for: running, done, or refused with what to do. */
import { useState } from 'react';
import { Refusal } from './call.ts';

export interface ActionState {
  running: boolean;
  refusal: Refusal | null;
  /** True when it went well. */
  run(work: () => Promise<unknown>): Promise<boolean>;
  clear(): void;
}

export function useAction(): ActionState {
  const [running, setRunning] = useState(false);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  return {
    running,
    refusal,
    clear: () => setRefusal(null),
    async run(work) {
      setRunning(true);
      setRefusal(null);
      try {
        await work();
        return true;
      } catch (error) {
        setRefusal(
          error instanceof Refusal ? error : new Refusal({ code: 'INTERNAL', message: String(error), remedy: 'Reload the page.' }, 0),
        );
        return false;
      } finally {
        setRunning(false);
      }
    },
  };
}
