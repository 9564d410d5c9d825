/** A queue's rules: when its jobs are lost, and the bundles and the runtime of its jobs. One form, which sends what was changed. */

import { Button, HStack, Text, VStack } from "@chakra-ui/react";
import { useState } from "react";
import { path, Problem, read } from "../api";
import { namesIn } from "../format";
import type { Listed, Queue, Runtime } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";
import { SelectField, TextField } from "./Dialog";
import { Facts } from "./Facts";
import { Tags } from "./Tags";
import { Duration } from "./Time";

/** The name that means every queue. Only the rule of bundles can be set for it. */
export const ALL_QUEUES = "*";

interface QueueRulesProps {
  name: string;
  /** Its row in the list; undefined: it has no jobs, workers or rules. */
  queue: Queue | undefined;
  mayManage: boolean;
  /** Send a change; return whether it was made. */
  onChange: (method: "PUT" | "DELETE", route: string, body?: unknown) => Promise<boolean>;
  onInvalid: (problem: Problem) => void;
}

const FIELDS = ["lost", "bundles", "runtime"] as const;
type Field = (typeof FIELDS)[number];

export function QueueRules({ name, queue, mayManage, onChange, onInvalid }: QueueRulesProps) {
  /** What the user has typed and not set yet: a refused change stays in its field. */
  const [typed, setTyped] = useState<Partial<Record<Field, string>>>({});
  const current = textsOf(queue);
  const texts = { ...current, ...typed };
  const { actions, explanations, prompts } = words();
  if (!mayManage) return <RuleFacts name={name} queue={queue} />;

  const type = (field: Field) => (text: string) => setTyped((old) => ({ ...old, [field]: text }));

  async function set(): Promise<void> {
    for (const field of FIELDS) {
      if (texts[field].trim() === current[field]) continue;
      const body = bodyOf(field, texts[field]);
      if (!body) return onInvalid(new Problem(words().invalidInput.lostAfter, 0, "invalid"));
      if (!(await onChange("PUT", path("queues", name, field === "lost" ? "rules" : field), body))) return;
    }
    setTyped({});
  }

  async function reset(): Promise<void> {
    if (await onChange("DELETE", path("queues", name, "rules"))) setTyped({});
  }

  const isAll = name === ALL_QUEUES;
  return (
    <VStack align="stretch" gap="3">
      <Text>{isAll ? explanations.rulesOfAll : explanations.rules}</Text>
      {isAll ? null : <TextField label={prompts.lostAfter} onChange={type("lost")} value={texts.lost} />}
      <TextField label={prompts.queueBundles} onChange={type("bundles")} value={texts.bundles} />
      {isAll ? null : <RuntimeField onChange={type("runtime")} value={texts.runtime} />}
      <HStack>
        <Button onClick={() => void set()} size="sm" variant="outline">
          {actions.setRules}
        </Button>
        {FIELDS.some((field) => current[field]) ? (
          <Button onClick={() => void reset()} size="sm" variant="outline">
            {actions.unsetRules}
          </Button>
        ) : null}
      </HStack>
    </VStack>
  );
}

/** Return the rules as a user would type them; empty: the queue has no such rule. */
function textsOf(queue: Queue | undefined): Record<Field, string> {
  return {
    lost: queue?.lost_after_s ? String(queue.lost_after_s) : "",
    bundles: (queue?.bundles ?? []).join(", "),
    runtime: queue?.runtime ?? "",
  };
}

/** Return the body that sets a rule; undefined if *text* is not valid. */
function bodyOf(field: Field, text: string): object | undefined {
  switch (field) {
    case "lost":
      return Number(text) > 0 ? { lost_after_s: Number(text) } : undefined;
    case "bundles":
      return { bundles: namesIn(text).length ? namesIn(text) : null };
    case "runtime":
      return { runtime: text || null };
  }
}

/** A choice from the runtimes that central has built. */
function RuntimeField({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const { notes, prompts } = words();
  const built = useLive("runtimes of queues", (signal) => read<Listed<Runtime>>("runtimes", {}, signal), { subjects: ["runtimes"] });
  const names = (built.value?.items ?? []).map((runtime) => runtime.name).filter((name) => name !== notes.defaultRuntime);
  const choices = Object.fromEntries(["", ...names, value].map((name) => [name, name || notes.defaultRuntime]));
  return <SelectField choices={choices} label={prompts.runtime} onChange={onChange} value={value} />;
}

function RuleFacts({ name, queue }: Pick<QueueRulesProps, "name" | "queue">) {
  const { fields, notes } = words();
  const lost = queue?.lost_after_s ?? null;
  const anyBundle = name === ALL_QUEUES ? notes.anyBundle : notes.modeOfAll;
  const bundles = { label: fields.bundles, value: queue?.bundles ? <Tags names={queue.bundles} /> : anyBundle };
  if (name === ALL_QUEUES) return <Facts facts={[bundles]} />;
  return (
    <Facts
      facts={[
        { label: fields.lostAfter, value: lost === null ? notes.configured : <Duration seconds={lost} /> },
        bundles,
        { label: fields.runtime, value: queue?.runtime ?? notes.defaultRuntime },
      ]}
    />
  );
}
