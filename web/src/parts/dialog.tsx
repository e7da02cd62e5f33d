/**
 * A modal window on the browser's own `<dialog>`: focus stays inside, Escape closes. Afterwards the focus is where it was before; where that
 * is gone (what it offered has been done), it is at the page's content, so that the next Tab does not begin at the top of the page.
 */
import { useId, useLayoutEffect, useRef, type ReactNode } from 'react';

interface Props {
  title: string;
  onClose: () => void;
  children: ReactNode;
  /** The buttons. */
  footer: ReactNode;
}

export function Dialog({ title, onClose, children, footer }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Before the window leaves the page: a `<dialog>` that is gone gives no focus back.
  useLayoutEffect(() => {
    const dialog = ref.current!;
    const opener = document.activeElement;
    if (!dialog.open) dialog.showModal();
    return () => {
      dialog.close();
      queueMicrotask(() => giveFocusBack(opener));
    };
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <h2 id={id}>{title}</h2>
      <div className="dialog-body">{children}</div>
      <footer>{footer}</footer>
    </dialog>
  );
}

function giveFocusBack(opener: Element | null): void {
  const isHeld = document.activeElement !== null && document.activeElement !== document.body;
  if (isHeld) return;
  const target = opener instanceof HTMLElement && opener.isConnected ? opener : document.getElementById('main');
  target?.focus();
}
