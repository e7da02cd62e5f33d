/** For who is not signed in: how to get in. */
import { useState } from 'react';
import { signIn, tokenIn, type Session } from '../data/session.ts';
import { useAction } from '../data/use-action.ts';
import { Refused } from '../parts/refused.tsx';

export function SignIn({ why, onSignedIn }: { why: string | null; onSignedIn: (session: Session) => void }) {
  const [text, setText] = useState('');
  const action = useAction();
  const submit = () => void action.run(async () => onSignedIn(await signIn(tokenIn(text) ?? text.trim())));
  return (
    <main className="sign-in">
      <form
        className="card"
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <h1>
          <img src="/mark.svg" alt="" width="28" height="28" />
          Understudy
        </h1>
        {why === null ? null : (
          <p className="banner info" role="status">
            {why}
          </p>
        )}
        <p>Run this on the host, and open the link that it prints:</p>
        <pre>
          <code>understudy console</code>
        </pre>
        <label>
          Or paste the link or its token here
          <input
            type="password"
            autoComplete="off"
            spellCheck={false}
            value={text}
            onChange={(event) => setText(event.target.value)}
            required
            maxLength={300}
          />
        </label>
        <Refused refusal={action.refusal} />
        <button type="submit" className="primary" disabled={action.running}>
          Sign in
        </button>
      </form>
    </main>
  );
}
