/** The first copy that was carried over on a medium becomes the replica. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import { useAction } from '../data/use-action.ts';
import { Dialog } from './dialog.tsx';
import { TextField } from './fields.tsx';
import { Refused } from './refused.tsx';

export function ImportDialog({ name, onClose }: { name: string; onClose: () => void }) {
  const [from, setFrom] = useState('');
  const action = useAction();
  const carryOut = async () => {
    if (await action.run(() => call('import', { name, from: from.trim() }))) onClose();
  };
  return (
    <Dialog
      title={`Import the first copy of ${name}`}
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" className="primary" disabled={!from.trim().startsWith('/') || action.running} onClick={() => void carryOut()}>
            {action.running ? 'Reading…' : 'Import'}
          </button>
        </>
      }
    >
      <ol className="guide">
        <li>On the primary the copy was exported to a folder, and its page says when that is finished.</li>
        <li>Carry the folder here, and name it, or the one that it is in.</li>
        <li>Every disk is read and checked. What the guest wrote meanwhile has been sent, and is applied afterwards.</li>
      </ol>
      <TextField label="Folder on this host" required value={from} placeholder="/media/usb" onChange={setFrom} hint="An absolute path." />
      <Refused refusal={action.refusal} />
    </Dialog>
  );
}
