/** Filters of a list, kept in the query string. */

import { Box, Button, HStack, Input } from "@chakra-ui/react";
import { useEffect, useState } from "react";
import { useAddress } from "../useAddress";
import { words } from "../words";
import { Select } from "./Select";

/** How long the user must pause before the filter is applied. */
const PAUSE_MS = 300;

interface TextFilterProps {
  name: string;
  label: string;
  /** What the API accepts; the filter is not applied before the text matches. */
  pattern?: RegExp;
}

/** A text field whose text becomes the filter once the user stops typing. */
export function TextFilter({ name, label, pattern }: TextFilterProps) {
  const address = useAddress();
  const current = address.get(name);
  const [typed, setTyped] = useState(current);
  const [seen, setSeen] = useState(current);
  if (seen !== current) {
    setSeen(current);
    setTyped(current);
  }
  const set = address.set;
  const isValid = !typed || !pattern || pattern.test(typed);
  useEffect(() => {
    if (typed === current || !isValid) return undefined;
    const timer = setTimeout(() => set({ [name]: typed }), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [typed, current, isValid, name, set]);
  return (
    <Input
      aria-invalid={!isValid}
      aria-label={label}
      maxW="10rem"
      onChange={(event) => setTyped(event.target.value)}
      placeholder={label}
      size="xs"
      value={typed}
    />
  );
}

interface ChoiceFilterProps {
  name: string;
  label: string;
  choices: Readonly<Record<string, string>>;
}

export function ChoiceFilter({ name, label, choices }: ChoiceFilterProps) {
  const address = useAddress();
  return (
    <Select
      choices={{ "": `${label}: ${words().fields.any}`, ...choices }}
      label={label}
      onChange={(value) => address.set({ [name]: value })}
      size="xs"
      value={address.get(name)}
    />
  );
}

/** A button that clears the filters of these names; hidden while none is set. */
export function ClearFilters({ names }: { names: readonly string[] }) {
  const address = useAddress();
  if (!names.some((name) => address.get(name))) return null;
  return (
    <Button onClick={() => address.set(Object.fromEntries(names.map((name) => [name, null])))} size="xs" variant="plain">
      {words().actions.clear}
    </Button>
  );
}

export function FilterBar({ children }: { children: React.ReactNode }) {
  return (
    <Box mb="3">
      <HStack gap="2" wrap="wrap">
        {children}
      </HStack>
    </Box>
  );
}
