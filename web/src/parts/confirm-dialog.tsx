/** A question, with what has to be said first, before something is carried out. */
import type { ReactNode } from 'react';
import { useAction } from '../data/use-action.ts';
import { Dialog } from './dialog.tsx';
import { Refused } from './refused.tsx';

interface Props {
  title: string;
  confirm: string;
  danger?: boolean;
  /** Something still has to be said yes to. */
  blocked?: boolean;
  /** On the button while it is carried out. */
  busy?: string;
  onClose: () => void;
  onConfirm: () => Promise<unknown>;
  children: ReactNode;
}

export function ConfirmDialog({ title, confirm, danger = false, blocked = false, busy = 'Working…', onClose, onConfirm, children }: Props) {
  const action = useAction();
  const carryOut = async () => {
    if (await action.run(onConfirm)) onClose();
  };
  return (
    <Dialog
      title={title}
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="button"
            className={danger ? 'danger' : 'primary'}
            disabled={action.running || blocked}
            onClick={() => void carryOut()}
          >
            {action.running ? busy : confirm}
          </button>
        </>
      }
    >
      {children}
      <Refused refusal={action.refusal} />
    </Dialog>
  );
}
