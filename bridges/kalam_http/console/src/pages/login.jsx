import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { logIn } from "../api.js";
import { Fault } from "../parts.jsx";

/** Asks a stranger who they are. Where they came from is in the address, and they are there again afterwards. */
export function LoginPage() {
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [wait, setWait] = useState(0); // seconds until the server takes another try
  const first = useRef(null);
  const second = useRef(null);
  useLayoutEffect(() => first.current.focus(), []);
  useEffect(() => {
    if (wait <= 0) return undefined;
    const timer = setTimeout(() => setWait(wait - 1), 1000);
    return () => clearTimeout(timer);
  }, [wait]);
  async function submit(event) {
    event.preventDefault();
    if (busy || wait > 0) return;
    setBusy(true);
    setError(null);
    try {
      await logIn(user, password);
    } catch (problem) {
      setError(problem);
      setWait(problem.retryAfter ?? 0);
      setPassword("");
      second.current?.focus();
    }
    setBusy(false);
  }
  return (
    <section class="login">
      <h1>Log in</h1>
      <form onSubmit={submit}>
        <label class="stacked">
          User
          <input type="text" name="user" required autocomplete="username" autocapitalize="none" spellcheck={false} ref={first} value={user} onInput={(event) => setUser(event.currentTarget.value)} />
        </label>
        <label class="stacked">
          Password
          <input type="password" name="password" required autocomplete="current-password" ref={second} value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
        </label>
        <Fault error={error} />
        {wait > 0 && <p class="soft">The next try is possible in {wait} s.</p>}
        <button type="submit" class="primary" disabled={busy || wait > 0}>Log in</button>
      </form>
    </section>
  );
}
