/** The first copy that was carried over on a medium becomes the replica. */
import { useState } from 'react';
import { call } from '../data/call.ts';
import { ConfirmDialog } from './confirm-dialog.tsx';
import { TextField } from './fields.tsx';

export function ImportDialog({ name, onClose }: { name: string; onClose: () => void }) {
  const [from, setFrom] = useState('');
  return (
    <ConfirmDialog
      title={`Import the first copy of ${name}`}
      confirm="Import"
      busy="Reading…"
      blocked={!from.trim().startsWith('/')}
      onClose={onClose}
      onConfirm={() => call('import', { name, from: from.trim() })}
    >
      <ol className="guide">
        <li>On the primary the copy was exported to a folder, and its page says when that is finished.</li>
        <li>Carry the folder here, and name it, or the one that it is in.</li>
        <li>Every disk is read and checked. What the guest wrote meanwhile has been sent, and is applied afterwards.</li>
      </ol>
      <TextField label="Folder on this host" required value={from} placeholder="/media/usb" onChange={setFrom} hint="An absolute path." />
    </ConfirmDialog>
  );
}
