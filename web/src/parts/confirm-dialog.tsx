/** A question before something that cannot be taken back lightly. */
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
  onClose: () => void;
  onConfirm: () => Promise<unknown>;
  children: ReactNode;
}

export function ConfirmDialog({ title, confirm, danger = false, blocked = false, onClose, onConfirm, children }: Props) {
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
            {action.running ? 'Working…' : confirm}
          </button>
        </>
      }
    >
      {children}
      <Refused refusal={action.refusal} />
    </Dialog>
  );
}
